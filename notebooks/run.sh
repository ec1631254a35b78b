#!/usr/bin/env bash
# Sets up, then runs the notebooks of databricks.yml's job in order:   bash notebooks/run.sh [--images FOLDER] [--help]
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$repository/config/setup.sh"
exec "$repository/.venv/bin/python" "$repository/notebooks/run.py" "$@"
