#!/usr/bin/env bash
# Sets up like train_all.sh and runs the tests; arguments go to pytest: bash tests/run.sh -k gold
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt
"$python" -m pytest -q -n 2 --dist loadfile tests "$@"
