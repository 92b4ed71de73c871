#!/usr/bin/env bash
# Seeds: how far can each figure of the README be trusted?
#
# Five runs of the whole recipe, about ten minutes each; mean, standard deviation and worst. Those
# of the README are of OMP_NUM_THREADS=1: another number of threads gives other last digits, and so
# other answers.

cd "$(dirname "$0")/.."
set -euo pipefail
source tools/setup.sh
setup requirements.txt requirements-extra.txt
for seed in 0 1 2 3 4; do SEED=$seed bash train_all.sh; done
"$python" -m tools.report --seeds out,out-1,out-2,out-3,out-4
