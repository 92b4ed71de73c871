#!/usr/bin/env bash
# Process supervision: what is gained by knowing which step is wrong? Run reasoning.sh before.
#
# A process reward model learns steps, labelled by the truth or by completions (Math-Shepherd, arXiv
# 2312.08935); an outcome reward model learns final answers. Both see the same answers.
#
# Look for: the fraction of lucky chains first, as without any all must tie; best of 64 next to the
# weighted vote; traces among correct answers; then RL on steps, on the process reward model, or on
# the final answer.

source "$(dirname "$0")/common.sh"

enter sums "$ALL/reasoning/seed-$SEED/sums/"{chains,final}.pt
once best_of.json -m later.process --resume
once steps.pt -m later.reasoning --resume --name steps --reward steps
once by_prm.pt -m later.reasoning --resume --name by_prm --reward prm
once measured.json -m later.measure --task sums --reference chains --n 200 --max-new-tokens 72 \
    --models chains,final,steps,by_prm
table labels.json correct lucky hard_labels_correct
table best_of.json 1 4 16 64 trace
table runs correct trace kl
