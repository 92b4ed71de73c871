#!/usr/bin/env bash
# Online against offline DPO, and imitating the best of four, each with about 9,000 sampled answers.
#
# Offline DPO learns from rankings of SFT's answers, online DPO (arXiv 2402.04792) from rankings of
# the current policy's own. RAFT (2304.06767) imitates the best of four answers, by the reward model
# or by true utility. Imitating a random one of the four is the control.

source "$(dirname "$0")/common.sh"

as_trained sft ppo
enter offline sft.pt comparisons.jsonl
once dpo.pt -m later.preferences --resume --loss dpo --beta 0.5 --lr 2e-4 --prompts 1400
for rank_by in reward labelers utility; do
    enter online-$rank_by sft.pt reward.pt
    once online.pt -m later.online --resume --rank-by $rank_by --lr 2e-4
done
for rank_by in reward utility random; do
    enter best-$rank_by sft.pt reward.pt
    once best.pt -m later.online --resume --method best --rank-by $rank_by --k 4 --rounds 3 \
        --batch 750 --lr 3e-4
done
table runs utility correct utility_greedy correct_greedy kl length
