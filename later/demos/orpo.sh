#!/usr/bin/env bash
# One stage instead of two: ORPO from the base model against SFT followed by DPO.
#
# ORPO (arXiv 2403.07691) imitates the best answer and lowers the odds of the others in one stage,
# without a reference. Its authors report that it loses to DPO at 125M parameters and wins at 1.3B.

source "$(dirname "$0")/common.sh"

last=orpo.pt
for lam in 0 0.1 1; do
    begin orpo-$lam base.pt comparisons.jsonl || continue
    py -m later.preferences --resume --loss orpo --init-from base --lam $lam --lr 1e-3 \
        --prompts 1200
done
learn sft-then-dpo dpo --beta 0.1 --lr 3e-4 --prompts 400
as_trained sft
table_of_policies
