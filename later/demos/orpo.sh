#!/usr/bin/env bash
# One stage instead of two: ORPO from the base model against SFT, then DPO.
#
# ORPO (arXiv 2403.07691) imitates the best answer and pushes the others down in one go, without a
# reference. At 125M parameters its authors found it behind DPO, ahead of it at 1.3B.
#
# Look for: true utility and right answers of orpo against sft, and of both after them.

source "$(dirname "$0")/common.sh"

last=orpo.pt
for lam in 0 0.1 1; do
    begin orpo-$lam base.pt comparisons.jsonl || continue
    py -m later.preferences --resume --loss orpo --begin base --lam $lam --lr 1e-3 --prompts 1200
done
learn sft-then-dpo dpo --beta 0.1 --lr 3e-4 --prompts 400
as_trained sft
table
