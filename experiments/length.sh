#!/usr/bin/env bash
# Do labelers who prefer long answers make answers long? The bias is what labelers add for e times
# as many words, in units of true utility. A small beta lets the policy follow further.
source "$(dirname "$0")/common.sh"

for bias in 0 0.5 1.5; do
    begin "bias-$bias" sft.pt || continue
    py compare.py --length-bias $bias --prompts 2000
    py reward.py
    py ppo.py --beta 0.03
    py dpo.py --beta 0.1
    evaluate
done
"$python" -m experiments.probe_reward "$OUT"
plot table sft,ppo,dpo utility_greedy
plot points ppo,dpo length utility kl
