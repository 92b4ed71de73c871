#!/usr/bin/env bash
# Reasoning on worked sums: additions of four to six numbers, one step per sentence.
#
# RL on the final answer alone (RLVR; DeepSeek-R1, arXiv 2501.12948).
#
# Look for: traces, which no reward checks; sums of seven and eight numbers, longer than any in
# training; majority vote and pass@8 before and after.
source "$(dirname "$0")/../../experiments/common.sh"

if begin sums base.pt; then
    py later.chains
    py later.reasoning --name final
    measure --task sums --reference chains --n 200 --max-new-tokens 72 --models chains,final
fi
plot rows correct trace correct_greedy majority pass_at_k kl correct_7 correct_8
