#!/usr/bin/env bash
# Sets up, checks style, types and layers, then runs the tests, in two processes unless a path is given:
#
#     bash tests/run.sh                      # the whole suite
#     bash tests/run.sh --quick              # at most 3 minutes: no Spark session, no services, no kills, nothing slow
#     bash tests/run.sh --soak               # long counts in full: 200 kills, 5,000 mutated files
#     bash tests/run.sh tests/dataset        # any pytest arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash config/setup.sh
bin=$PWD/.venv/bin
quick=()
case "${1:-}" in
    --quick) shift; quick=(-m "not spark and not service and not chain and not kill and not slow") ;;
    --soak) shift; export LAKEVISION_SOAK=1 ;;
esac
"$bin/ruff" check -q .
"$bin/ruff" format -q --check .
PYTHONPATH=notebooks:. "$bin/lint-imports" --no-cache >/dev/null || PYTHONPATH=notebooks:. "$bin/lint-imports" --no-cache
mkdir -p .local
"$bin/mypy"
# Files stay together, and the users of the one chain share a process: see tests/conftest.py.
[ $# -gt 0 ] || set -- -n 2 --dist loadgroup tests
exec "$bin/python" -m pytest -c tests/pytest.ini --rootdir=. "${quick[@]}" "$@"
