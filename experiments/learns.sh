#!/usr/bin/env bash
# What the reward model learns from: prompts, answers a prompt, passes, and whose labels.
#
# The paper: K from 4 to 9 with all pairs of a prompt as one element; shuffled pairs overfit within one
# epoch (section 3.5). Cross-validated over five groups of labelers, 72.4 % on the labelers it was
# trained on and 69.6 % on those held out (section 4.1).
#
# Look for: accuracy_gold by number of prompts and by K at equal prompts; accuracy_labels of shuffled
# pairs after one and three passes, beside whole prompts; the two accuracies of the folds.

source "$(dirname "$0")/common.sh"

last=reward.pt
measure() { begin "$1" sft.pt || return 0; py reward.py "${@:2}"; }

for n in 100 300 1000 3500; do measure "prompts-$n" --prompts $n; done
for k in 2 4 9; do measure "k-$k" --k $k --prompts 1000; done
for epochs in 1 3; do
    measure "whole-epochs-$epochs" --prompts 1000 --epochs $epochs
    measure "pairs-epochs-$epochs" --prompts 1000 --epochs $epochs --shuffle-pairs --batch 64
done
for fold in 0 1 2 3 4; do measure "fold-$fold" --prompts 1500 --fold $fold; done
"$python" experiments/plot.py closing "$OUT" reward accuracy_labels accuracy_heldout_labelers accuracy_gold
