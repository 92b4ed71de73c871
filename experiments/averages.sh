#!/usr/bin/env bash
# SFT averages: whose habits does a model have that imitates several labelers?
#
# Demonstrations come from careful, terse, rambling, careless, pleasing and rude labelers. SFT is
# trained on few and on many of them; each answer is then put to the habit that it shows.
#
# Look for: the shares of habits in SFT's answers beside those among its labelers, by number of
# demonstrations, and what preferences (PPO, DPO) pick out of the mixture.

source "$(dirname "$0")/common.sh"

as_trained
for n in 250 1000 4000; do
    begin "sft-$n" base.pt || continue
    py sft.py --demonstrations $n
    py eval.py --prompts 500 --probes 1
done
"$python" experiments/habits.py "$OUT"
