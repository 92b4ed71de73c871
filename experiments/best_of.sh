#!/usr/bin/env bash
# Best of n: no training at all, the reward model picks among n SFT answers.
#
# Its KL to SFT is log n - (n-1)/n if no two answers tie; answers here do, so the exact value of the
# discrete distribution is printed beside it (Beirami et al., arXiv 2401.01879, show it is smaller).
#
# Look for: score and true utility against the KL, with PPO and DPO on the same axes.

source "$(dirname "$0")/common.sh"

if begin n sft.pt reward.pt ppo.pt dpo.pt; then
    py experiments/exact.py --measure best_of
    py eval.py $small
fi
"$python" experiments/figures.py best_of "$OUT"
