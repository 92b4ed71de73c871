#!/usr/bin/env bash
# Every experiment but seeds.sh, one seed each (SEED=1 bash experiments/all.sh is another), some
# hours.
set -euo pipefail
cd "$(dirname "$0")"
for experiment in dial figure1 rounds remedies leashes averages banana length sycophancy honesty \
                  tax stages best_of learns clicks closed_form; do
    OUT=${OUT:+$OUT/$experiment} bash $experiment.sh
done
