#!/usr/bin/env bash
# Binary feedback, with 90 % of the positives dropped.
#
# KTO (arXiv 2402.01306) learns from single answers, good or bad. DPO needs a good and a bad answer
# to the same prompt, so with few good answers it can use little of the data. KTO's authors report
# that KTO still matches DPO after 90 % of the desirable examples are dropped.

source "$(dirname "$0")/common.sh"

for keep in 1 0.1; do
    last=feedback.jsonl
    if begin labels-$keep sft.pt comparisons.jsonl; then
        py -m later.demos.relabel --binary --keep $keep
    fi
    labels=$OUT/seed-$SEED/labels-$keep COMPARISONS=$OUT/seed-$SEED/labels-$keep/comparisons.jsonl
    for beta in 0.1 0.5; do
        learn kto-$beta-keep-$keep kto --lr 3e-4 --beta $beta --prompts 700 \
            --feedback "$labels/feedback.jsonl"
    done
    learn dpo-0.5-keep-$keep dpo --lr 1.5e-4 --beta 0.5 --prompts 1200
done
as_trained sft
table_of_policies
