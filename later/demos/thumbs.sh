#!/usr/bin/env bash
# Thumbs instead of pairs, and of the good answers a tenth.
#
# A labeler says of each answer alone whether it is good. KTO (arXiv 2402.01306) learns from that as
# it is; DPO needs a good and a bad answer to the same prompt, and once good answers are rare it
# can use little of what was collected. Its authors find KTO level with 90 % of the good left out.
#
# Look for: kto against dpo with all thumbs, and with a tenth of the good ones.

source "$(dirname "$0")/common.sh"

for keep in 1 0.1; do
    last=metrics/labels.jsonl
    if begin labels-$keep; then
        py -m later.labels --thumbs --rankings "$FROM/comparisons.jsonl" --keep $keep
    fi
    RANKINGS=$OUT/seed-$SEED/labels-$keep/comparisons.jsonl
    thumbs=$OUT/seed-$SEED/labels-$keep/thumbs.jsonl
    learn kto-0.1-keep-$keep kto --lr 3e-4 --beta 0.1 --prompts 700 --thumbs "$thumbs"
    learn kto-0.5-keep-$keep kto --lr 3e-4 --beta 0.5 --prompts 700 --thumbs "$thumbs"
    learn dpo-0.5-keep-$keep dpo --lr 1.5e-4 --beta 0.5 --prompts 1200
done
as_trained sft
table
