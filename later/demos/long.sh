#!/usr/bin/env bash
# Labelers with a length bias: which losses give shorter answers at equal true utility?
#
# The labelers add 1.5 to the utility of an answer that is e times as long. SimPO and DPO per token
# (norm) divide log-probs by the length; R-DPO (length) subtracts a price per token from the margin.
# length-more has three times the price, simpo-slow a sixth of the learning rate.

source "$(dirname "$0")/common.sh"

last=metrics/compare.jsonl
if begin labels sft.pt; then py compare.py --length-bias 1.5 --prompts 500; fi
COMPARISONS=$OUT/seed-$SEED/labels/comparisons.jsonl
for beta in 0.1 0.3 1; do learn dpo-$beta dpo --lr 3e-4 --beta $beta; done
learn length-0.1 length --lr 3e-4 --beta 0.1 --alpha 0.05
learn length-more length --lr 3e-4 --beta 0.1 --alpha 0.15
for beta in 3 10; do learn norm-$beta norm --lr 3e-4 --beta $beta; done
for beta in 2.5 5; do learn simpo-$beta simpo --lr 3e-4 --beta $beta; done
learn simpo-slow simpo --lr 5e-5 --beta 2.5
as_trained sft
table_of_policies
