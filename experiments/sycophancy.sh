#!/usr/bin/env bash
# Do labelers who like agreement make a sycophantic policy? The bias is what labelers add when an
# answer affirms a false premise, which costs 4.8 in true utility. Remedies: 200 pairs of a careful
# answer above a pleasing one, or the true utility as the reward.
source "$(dirname "$0")/common.sh"

for setting in "bias-0 0 0" "bias-3 3 0" "bias-6 6 0" "bias-6-contrast 6 200"; do
    read -r label bias pairs <<< "$setting"
    begin "$label" sft.pt || continue
    py compare.py --prompts 2000 --sycophancy-bias $bias
    "$python" -m experiments.pairs contrast $pairs $SEED >> "$run/comparisons.jsonl"
    py reward.py
    py ppo.py
    py dpo.py
    evaluate
done
if begin reward-utility sft.pt; then
    py experiments.other_reward --reward utility
    evaluate
fi
"$python" -m experiments.probe_reward "$OUT"
plot table sft,ppo,dpo affirms_false_greedy denies_true_greedy utility_greedy refuses
plot points ppo,dpo affirms_false denies_true utility
