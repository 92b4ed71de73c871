#!/usr/bin/env bash
# Every experiment, one seed each (SEED=1 bash experiments/all.sh is another), about an hour.
set -euo pipefail
cd "$(dirname "$0")"
for experiment in dial banana length sycophancy honesty tax stages best_of learns clicks closed_form \
                  rounds remedies leashes averages figure1; do
    bash $experiment.sh
done
