#!/usr/bin/env bash
# Online against offline, and best of four, at equal numbers of sampled answers: about 9,000.
#
# Offline DPO learns from rankings of SFT's answers, online DPO (arXiv 2402.04792) from those of the
# policy of now, judged by the reward model or by the labelers. Best of four (RAFT, 2304.06767)
# imitates what the reward model likes, what is truly best, or any of the four.
#
# Look for: online against offline and PPO; whether imitating a random answer gains anything.

source "$(dirname "$0")/common.sh"

as_trained sft ppo
learn offline dpo --beta 0.5 --lr 2e-4 --prompts 1400
last=online.pt
for judge in reward labelers truth; do
    begin online-$judge sft.pt reward.pt || continue
    py -m later.online --resume --judge $judge --lr 2e-4
done
last=best.pt
for judge in reward truth random; do
    begin best-$judge sft.pt reward.pt || continue
    py -m later.online --resume --stage best --judge $judge
done
table
