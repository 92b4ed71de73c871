#!/usr/bin/env bash
# How far can the README's figures be trusted? Five runs of the whole recipe; mean and standard
# deviation. Those of the README were measured with OMP_NUM_THREADS=1: another number of threads
# changes last digits, and with them samples.

set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt
OUT=out bash train_all.sh
for seed in 1 2 3 4; do SEED=$seed OUT=out-$seed bash train_all.sh; done
"$python" -m report.table --seeds out,out-1,out-2,out-3,out-4
