#!/usr/bin/env bash
# The beta dial: how far may the policy go?
#
# PPO maximises score - beta KL. Gao et al. (arXiv 2210.10760) find that the true reward first rises
# with the distance d = sqrt(KL) and then falls while the proxy goes on rising, and fit
# R(d) = d (a - b log d). Here the truth is known, so both curves can be drawn.
#
# Look for: where the two curves part; what beta 0 writes; how little beta 2 changes.
#
# Found over three seeds: true utility 0.47 ± 0.05 at beta 2, 1.49 ± 0.12 at 0.2 (KL 2.0), -2.08 ±
# 0.36 at 0 (KL 164), while the score rises all the way, from 0.06 to 2.00.
# 6 minutes a seed; more in README.md.

source "$(dirname "$0")/common.sh"

for beta in 0 0.02 0.05 0.1 0.2 0.5 1 2; do
    begin "beta-$beta" sft.pt reward.pt || continue
    py ppo.py --beta "$beta" --iterations 60 --eval-prompts 128
    py eval.py $small
done
"$python" experiments/plot.py dial "$OUT"
