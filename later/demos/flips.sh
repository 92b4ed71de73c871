#!/usr/bin/env bash
# Which losses are robust to label noise? 25 % of the training labels are flipped.
#
# rDPO (arXiv 2403.00409) is told this fraction and corrects for it in expectation, cDPO trusts
# every label less, and IPO and KTO are reported to tolerate noise better than DPO. The data are
# pairs instead of rankings, so that every label is flipped independently.

source "$(dirname "$0")/common.sh"

same="--lr 1.5e-4 --prompts 1200"
for flip in 0 0.25; do
    last=feedback.jsonl
    if begin labels-$flip sft.pt comparisons.jsonl; then py -m later.demos.relabel --flip $flip; fi
    COMPARISONS=$OUT/seed-$SEED/labels-$flip/comparisons.jsonl
    learn dpo-flipped-$flip dpo $same --beta 0.5
    learn rdpo-flipped-$flip rdpo $same --beta 0.5 --eps 0.25
    learn cdpo-flipped-$flip cdpo $same --beta 0.5 --eps 0.25
    learn ipo-flipped-$flip ipo $same --tau 0.3
    learn kto-flipped-$flip kto $same --beta 0.5
done
as_trained sft
table_of_policies
