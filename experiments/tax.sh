#!/usr/bin/env bash
# What does PPO cost on pretraining text, and what reduces the cost: a higher beta, or pretraining
# gradients? --ptx is the paper's gamma (appendix E.6).
source "$(dirname "$0")/common.sh"

as_trained
for gamma in 0.3 3; do
    begin "gamma-$gamma" sft.pt reward.pt comparisons.jsonl || continue
    py ppo.py --ptx $gamma
    py eval.py $small
done
for beta in 0.5 1; do
    begin "beta-$beta" sft.pt reward.pt comparisons.jsonl || continue
    py ppo.py --beta $beta
    py eval.py $small
done
table base lm_loss
points ppo,ppo_ptx lm_loss few_shot utility correct
