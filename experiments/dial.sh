#!/usr/bin/env bash
# The beta dial: how far may the policy go?
#
# PPO maximises score - beta KL. Gao et al. (arXiv 2210.10760) find that the true reward first rises
# with the distance d = sqrt(KL) and then falls while the proxy goes on rising, and fit
# R(d) = d (a - b log d). Here the truth is known, so both curves can be drawn.
#
# The reward model is the paper's, a head in the place of the unembedding. The one that keeps its
# likelihood is harder to exploit: it is tried without a leash at the end.
#
# Look for: where the two curves part; what beta 0 writes; how little beta 2 changes.

source "$(dirname "$0")/common.sh"

last=reward.pt
if begin plain sft.pt comparisons.jsonl; then
    py reward.py --no-likelihood
fi
model=$run/reward.pt
last=results.json
for beta in 2 0.5 0.2 0.1 0.05 0.02 0.005 0; do
    begin "beta-$beta" sft.pt || continue
    cp "$model" "$run/"
    py ppo.py --beta "$beta"
    py eval.py $small
done
if begin likelihood-0 sft.pt reward.pt; then
    py ppo.py --beta 0
    py eval.py $small
fi
"$python" experiments/figures.py dial "$OUT"
"$python" experiments/plot.py table "$OUT" ppo kl score gold right
