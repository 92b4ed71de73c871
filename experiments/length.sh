#!/usr/bin/env bash
# Length: labelers who like long answers teach the reward model to like them, and PPO obliges.
#
# Singhal et al. (arXiv 2310.03716) find that much of what RLHF gains is length. --length-bias is
# what labelers add for e times as many words, in units of true utility: none, mild, strong. The
# remedy is the first row: labels without the bias.
#
# Look for: length_slope, what the reward model pays for e times as many words at equal utility;
# the length of answers; the true utility. A small beta lets the policy follow further.

source "$(dirname "$0")/common.sh"

for bias in 0 0.5 1.5; do
    begin "bias-$bias" sft.pt || continue
    py compare.py --length-bias "$bias" --prompts 2000
    py reward.py
    py ppo.py --beta 0.03
    py eval.py $small
done
"$python" experiments/plot.py table "$OUT" rm length_slope accuracy_gold
"$python" experiments/plot.py points "$OUT" ppo length gold kl score
