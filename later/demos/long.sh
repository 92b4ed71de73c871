#!/usr/bin/env bash
# Labelers who love length: is a loss that divides by it, or pays it, shorter at equal utility?
#
# --length-bias is what labelers add for e times as many words, in units of true utility. SimPO
# and DPO per token divide by the length, R-DPO takes its share out of the label.
#
# Look for: tokens and true utility of each against dpo; SFT's answers are in the last row.

source "$(dirname "$0")/common.sh"

last=metrics/compare.jsonl
if begin labels sft.pt; then py compare.py --length-bias 1.5 --prompts 500; fi
RANKINGS=$OUT/seed-$SEED/labels/comparisons.jsonl
learn dpo-0.1 dpo --lr 3e-4 --beta 0.1
learn dpo-0.3 dpo --lr 3e-4 --beta 0.3
learn dpo-1 dpo --lr 3e-4 --beta 1
learn length-0.1 length --lr 3e-4 --beta 0.1 --alpha 0.05
learn length-more length --lr 3e-4 --beta 0.1 --alpha 0.15
learn norm-3 norm --lr 3e-4 --beta 3
learn norm-10 norm --lr 3e-4 --beta 10
learn simpo-2.5 simpo --lr 3e-4 --beta 2.5
learn simpo-5 simpo --lr 3e-4 --beta 5
learn simpo-slow simpo --lr 5e-5 --beta 2.5
as_trained sft
table
