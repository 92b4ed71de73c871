#!/usr/bin/env bash
# Online against offline DPO, and imitating the best of four, each with about 9,000 sampled answers.
#
# Offline DPO learns from rankings of SFT's answers, online DPO (arXiv 2402.04792) from rankings of
# the current policy's own. RAFT (2304.06767) imitates the best of four answers, by the reward model
# or by true utility. Imitating a random one of the four is the control.
source "$(dirname "$0")/../../experiments/common.sh"

for model in sft ppo; do
    begin $model sft.pt $model.pt || continue
    measure --models $model
done
if begin offline sft.pt comparisons.jsonl; then
    py later.preferences --loss dpo --beta 0.5 --lr 2e-4 --prompts 1400
    measure --models dpo
fi
for rank_by in reward labelers utility; do
    begin online-$rank_by sft.pt reward.pt || continue
    py later.online --rank-by $rank_by --lr 2e-4
    measure --models online
done
for rank_by in reward utility random; do
    begin best-$rank_by sft.pt reward.pt || continue
    py later.online --method best --rank-by $rank_by --k 4 --rounds 3 --batch 750 --lr 3e-4
    measure --models best
done
plot rows utility correct utility_greedy correct_greedy kl length
