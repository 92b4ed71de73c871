#!/usr/bin/env bash
# What the reward model learns from: prompts, answers a prompt, passes, whose labels, and its own
# size.
#
# The paper: K from 4 to 9 with all pairs of a prompt as one element; shuffled pairs overfit
# within one epoch (section 3.5). Cross-validated over five groups of labelers, 72.4 % on the
# labelers it was trained on and 69.6 % on those held out (section 4.1). A 6B reward model for
# every policy, since larger ones trained less stably (appendix C.2).
#
# Look for: accuracy_gold by number of prompts and by K at equal prompts; accuracy_labels of
# shuffled pairs after one and three passes, beside whole prompts; the two accuracies of the
# folds; and the sizes, which begin with base models of their own, so compare them with base-4x96.

source "$(dirname "$0")/common.sh"

measure() {     # measure RUN "FLAGS of asking.py" "FLAGS of reward.py"
    begin "$1" sft.pt || return 0
    py experiments/asking.py $2
    py reward.py ${3:-}
    py eval.py --prompts 100
}
size() {    # size LAYERS HEADS CHANNELS   a base model of that size, then 1,000 prompts
    begin "base-$1x$3" comparisons.jsonl || return 0
    py sft.py --stage pretrain --n-layer $1 --n-head $2 --n-embd $3 --steps 400
    { head -n 1000 "$run/comparisons.jsonl"
      grep '"split": "valid"' "$run/comparisons.jsonl"; } > "$run/some.jsonl"
    py reward.py --begin base --comparisons "$run/some.jsonl" --demonstrations 500
    cp "$FROM/sft.pt" "$run/"
    py eval.py --prompts 100
}

for n in 100 300 1000; do measure "prompts-$n" "--prompts $n"; done
measure prompts-4000 "--prompts 4000"
for k in 2 4 9; do measure "k-$k" "--k $k --prompts 500"; done
for epochs in 1 3; do
    measure "whole-epochs-$epochs" "--prompts 500" "--epochs $epochs"
    begin "pairs-epochs-$epochs" sft.pt || continue
    py compare.py --prompts 500
    "$python" experiments/shuffled.py "$run/comparisons.jsonl" "$run/pairs.jsonl"
    py reward.py --comparisons "$run/pairs.jsonl" --epochs $epochs --batch 64
    py eval.py --prompts 100
done
for fold in 0 1 2 3 4; do measure "fold-$fold" "--prompts 600 --fold $fold"; done
size 2 4 48
size 4 3 96
size 6 4 128
"$python" experiments/plot.py points "$OUT" rm \
    accuracy_labels accuracy_heldout_labelers accuracy_gold reads_wrong
