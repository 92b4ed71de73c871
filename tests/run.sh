#!/usr/bin/env bash
# Sets up like train_all.sh and runs the tests; arguments go to pytest: bash tests/run.sh -k whiten
# ALL=1 includes the tests of later/, course/ and experiments/.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt
export OMP_NUM_THREADS=1               # two test processes, one thread each
skip=(--ignore-glob="*/test_later_*" --ignore-glob="*/test_course*" --ignore-glob="*/test_experiments*")
if [ "${ALL:-0}" = 1 ]; then skip=(); fi
"$python" -m pytest -q -n 2 --dist loadfile tests ${skip[@]+"${skip[@]}"} "$@"
