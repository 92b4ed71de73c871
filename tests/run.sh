#!/usr/bin/env bash
# Sets up like train_all.sh and runs the tests; arguments go to pytest.
#
#   bash tests/run.sh                       without the tests of later/, course/ and experiments/
#   ALL=1 bash tests/run.sh                 all tests
#   bash tests/run.sh tests/test_ppo.py     one file
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt
export OMP_NUM_THREADS=1                    # two test processes with a thread each
tests=(tests --ignore-glob="*/test_later_*" --ignore-glob="*/test_course*"
       --ignore-glob="*/test_experiments*")
if [ "${ALL:-0}" = 1 ]; then tests=(tests); fi
case "${1:-}" in tests/*) tests=(); esac
"$python" -m pytest -q -n 2 --dist loadfile ${tests[@]+"${tests[@]}"} "$@"
