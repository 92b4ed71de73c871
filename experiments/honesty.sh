#!/usr/bin/env bash
# Helpful against honest: what if labelers praise confidence, or doubt? The bias is what they add,
# in units of true utility; an invention costs about 3. Questions about things that do not exist are
# rare, so 1,000 more of these are ranked, and PPO trains on the prompts of the comparisons.
source "$(dirname "$0")/common.sh"

for bias in "confidence-bias 0" "confidence-bias 3" "confidence-bias 6" "doubt-bias 3"; do
    begin "${bias/ /-}" sft.pt || continue
    py experiments.collect --prompts 2000 --$bias
    py reward.py
    py ppo.py --prompts "$run/comparisons.jsonl"
    py dpo.py
    evaluate
done
"$python" -m experiments.probe_reward "$OUT"
plot table sft,ppo,dpo utility_greedy kl
plot points ppo,dpo invents refuses utility
