#!/usr/bin/env bash
# How close do PPO and DPO get to the closed-form optimum, where an answer is a single token?
source "$(dirname "$0")/common.sh"

for beta in 0.1 0.3 1; do
    begin "beta-$beta" sft.pt reward.pt || continue
    py experiments.closed_form --beta $beta
done
plot points sft,ppo-10,ppo-40,ppo-160,dpo distance
