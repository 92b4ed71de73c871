#!/usr/bin/env bash
# What does the same KL to SFT buy? Best of n, PPO (the runs of dial.sh) and DPO; and what does it
# buy without labels, if answers are chosen, or PPO is rewarded, by SFT's log-probability alone?
source "$(dirname "$0")/common.sh"

if begin n sft.pt reward.pt comparisons.jsonl ppo.pt dpo.pt; then
    py experiments.best_of
    evaluate
fi
for beta in 0.1 1; do
    begin "dpo-$beta" sft.pt reward.pt comparisons.jsonl || continue
    py dpo.py --beta $beta
    evaluate
done
for beta in 0.5 2; do
    begin "no-labels-$beta" sft.pt reward.pt comparisons.jsonl || continue
    py experiments.other_reward --reward logprob --beta $beta \
        --missing-eos-score -60 --value-clip 5
    evaluate
done
plot table sft,ppo,dpo kl score utility correct utility_greedy correct_greedy
plot best_of
