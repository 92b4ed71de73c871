#!/usr/bin/env bash
# The alignment tax: what PPO costs on the pretraining distribution, and what buys it back.
#
# Appendix E.6 of the paper: raising beta does not bring the regressions back, mixing pretraining
# gradients in does, and costs little of the reward.
#
# Look for: lm_loss (lower is better) and few_shot of base and SFT, then of PPO-ptx over gamma
# (--ptx) at the same beta, and of PPO over beta without it; gold is what is given up for it.

source "$(dirname "$0")/common.sh"

as_trained              # gamma 1 in PPO-ptx, beta 0.1
for gamma in 0.3 3; do
    begin "gamma-$gamma" sft.pt reward.pt || continue
    py ppo.py --ptx "$gamma"
    py eval.py $small
done
for beta in 0.3 1; do
    begin "beta-$beta" sft.pt reward.pt || continue
    py ppo.py --beta "$beta"
    py eval.py $small
done
"$python" experiments/figures.py tax "$OUT"
