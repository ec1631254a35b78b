#!/usr/bin/env bash
# Sets up, then runs all tests:   bash tests/run.sh [--soak] [pytest arguments]
# --soak runs the long counts whole (200 kills, 5,000 mutated files) where the plain suite runs a seeded share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash config/setup.sh
if [ "${1:-}" = "--soak" ]; then
    export LAKEVISION_SOAK=1
    shift
fi
exec .venv/bin/python -m pytest -c tests/pytest.ini --rootdir=. "${@:-tests}"
