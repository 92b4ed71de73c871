#!/usr/bin/env bash
# Process supervision: what is gained by knowing which step is wrong? Run reasoning.sh before.
#
# A process reward model learns steps, labelled by the truth or by completions (Math-Shepherd, arXiv
# 2312.08935); an outcome reward model learns final answers. Both see the same answers.
#
# Look for: the fraction of lucky chains first, as without any all must tie; best of 64 next to the
# weighted vote; then RL on steps, on the process reward model, or on the final answer.
source "$(dirname "$0")/../../experiments/common.sh"

sums=${OUT%/*}/reasoning/seed-$SEED/sums
choose=$OUT/seed-$SEED/choose

if begin choose "$sums/chains.pt"; then
    py later.process
    mv "$run/process.json" "$run/results.json"
fi
if begin rl "$sums"/{chains,final}.pt "$choose/prm.pt"; then
    py later.reasoning --name steps --reward steps
    py later.reasoning --name by_prm --reward prm
    measure --task sums --reference chains --n 200 --max-new-tokens 72 \
        --models chains,final,steps,by_prm
fi
plot rows correct lucky hard_labels_correct trace kl
plot rows 1 4 16 64
