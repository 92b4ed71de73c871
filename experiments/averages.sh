#!/usr/bin/env bash
# Which labelers does SFT imitate, from few and from many demonstrations? And PPO and DPO?
source "$(dirname "$0")/common.sh"

as_trained
for n in 250 1000 4000; do
    begin "sft-$n" base.pt || continue
    py sft.py --demonstrations $n
    py eval.py --prompts 500 --probes 1
done
plot table sft,ppo,dpo correct less_task less_falsehoods less_padding less_rude less_affirms
