#!/usr/bin/env bash
# What does a plainly wrong reward do? Each "banana" pays 1. SFT says the word once in a hundred
# answers, so PPO needs more and longer steps than usual.
source "$(dirname "$0")/common.sh"

for beta in 0 0.1 0.2 1; do
    begin "beta-$beta" sft.pt reward.pt comparisons.jsonl || continue
    py experiments.other_reward --reward banana --beta $beta --iterations 60 --lr 4e-4
    evaluate
done
plot points ppo bananas less_form length kl utility
