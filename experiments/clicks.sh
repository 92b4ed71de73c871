#!/usr/bin/env bash
# Fifty noisy clicks: how many votes until Bradley-Terry scores can be trusted?
#
# Four answers of known quality to one prompt; labelers, drawn at random, vote on random pairs; the
# scores are fitted to the votes by the reward model's own loss (eq. 1). No network is trained.
#
# Look for: how often the fitted order is the true one, and how far the scores spread over seeds,
# from 1 to 500 votes. To be the labeler yourself:
#
#   python compare.py --me                                    twenty pairs, one key each
#   python reward.py --comparisons out/labels.jsonl --out out/mine     (with sft.pt copied there)

set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt
"$python" experiments/clicks.py
