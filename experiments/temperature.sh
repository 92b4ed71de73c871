#!/usr/bin/env bash
# What does a lower temperature buy, and what can it not? The finished run's models at five
# temperatures.
source "$(dirname "$0")/common.sh"

for temperature in 1 0.7 0.5 0.25 0; do
    begin "temperature-$temperature" base.pt sft.pt ppo.pt ppo_ptx.pt dpo.pt || continue
    py experiments.temperature --temperature $temperature
done
plot table base_few_shot,sft,ppo,ppo_ptx,dpo correct content utility win_utility win_greedy_sft affirms_false denies_true invents
plot temperature
