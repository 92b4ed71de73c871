#!/usr/bin/env bash
# Every experiment except seeds.sh, for one seed; takes some hours.
set -euo pipefail
cd "$(dirname "$0")"
for experiment in dial likelihood figure1 rounds remedies clip_and_kl averages banana length \
                  sycophancy honesty tax stages best_of learns closed_form; do
    bash $experiment.sh
done
