#!/usr/bin/env bash
# A quarter of the labels turned: which losses mind?
#
# Pairs instead of rankings, so that each label is turned on its own. rDPO (2403.00409) is told
# the share and undoes it on average; cDPO believes every label less; IPO and KTO are said to bear
# noise better than DPO.
#
# Look for: what each loses from clean to turned, at the beta that suits it.

source "$(dirname "$0")/common.sh"

same="--lr 1.5e-4 --prompts 1200"
for flip in 0 0.25; do
    last=metrics/labels.jsonl
    if begin labels-$flip; then
        py -m later.labels --rankings "$FROM/comparisons.jsonl" --pairs 2 --flip $flip
    fi
    RANKINGS=$OUT/seed-$SEED/labels-$flip/comparisons.jsonl
    learn dpo-turned-$flip dpo $same --beta 0.5
    learn rdpo-turned-$flip rdpo $same --beta 0.5 --eps 0.25
    learn cdpo-turned-$flip cdpo $same --beta 0.5 --eps 0.25
    learn ipo-turned-$flip ipo $same --tau 0.3
    learn kto-turned-$flip kto $same --beta 0.5
done
as_trained sft
table
