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
#
# Found in the first edition, over a hundred seeds: the best answer stands first after 1, 10, 50
# votes in 41, 79, 94 %.
# Ten seconds; more in README.md.

source "$(dirname "$0")/common.sh"
"$python" experiments/clicks.py
