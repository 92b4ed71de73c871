#!/usr/bin/env bash
# How far does best of n get, compared with PPO and DPO at equal KL?
source "$(dirname "$0")/common.sh"

if begin n sft.pt reward.pt comparisons.jsonl ppo.pt dpo.pt; then
    py experiments.best_of
    evaluate
fi
plot best_of
