#!/usr/bin/env bash
# What does PPO cost on pretraining text, and what reduces the cost: a higher beta, or pretraining
# gradients? --ptx is the paper's gamma (appendix E.6).
source "$(dirname "$0")/common.sh"

as_trained
for gamma in 0.3 3; do run_ppo gamma-$gamma --ptx $gamma; done
for beta in 0.5 1; do run_ppo beta-$beta --beta $beta; done
plot table base lm_loss
plot points ppo,ppo_ptx lm_loss few_shot utility correct
