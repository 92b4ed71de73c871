#!/usr/bin/env bash
# Sets up like train_all.sh and runs the tests; arguments go to pytest: bash tests/run.sh -k gold
# ALL=1 adds those of later/ and course/, which take twice as long again.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt
others=("--ignore-glob=*/test_later_*" "--ignore-glob=*/test_course*")
if [ "${ALL:-0}" = 1 ]; then others=(); fi
"$python" -m pytest -q -n 2 --dist loadfile tests ${others[@]+"${others[@]}"} "$@"
