#!/usr/bin/env bash
# Does a reward model gain from the answer's log-likelihood? See likelihood.py.
source "$(dirname "$0")/common.sh"

for beta in 0.1 0.2; do
    run_ppo plain-$beta --beta $beta
    begin "likelihood-$beta" sft.pt comparisons.jsonl || continue
    for script in reward "ppo --beta $beta" "eval --prompts 200 --probes 60"; do
        py experiments.likelihood $script
    done
done
plot table sft,ppo correct correct_greedy utility utility_greedy kl
plot table rm accuracy_utility reads_wrong
