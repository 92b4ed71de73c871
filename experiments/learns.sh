#!/usr/bin/env bash
# What does the reward model learn from: prompts, answers per prompt, whole prompts or shuffled
# pairs, size?
source "$(dirname "$0")/common.sh"

keep() {        # keep N   the first N rankings to train on, and all that are held out
    { grep -m "$1" '"split": "train"' "$run/comparisons.jsonl"
      grep '"split": "valid"' "$run/comparisons.jsonl"; } > "$run/first.jsonl"
    mv "$run/first.jsonl" "$run/comparisons.jsonl"
}
fit() {         # fit FLAGS of reward.py...
    py reward.py "$@"
    py eval.py --prompts 100 --probes 1
}

for n in 100 300 1000 4000; do
    begin "prompts-$n" sft.pt comparisons.jsonl || continue
    keep $n
    fit
done
for k in 2 4 9; do
    begin "k-$k" sft.pt || continue
    py compare.py --k $k --prompts 500
    fit
done
for epochs in 1 3; do
    if begin "whole-$epochs" sft.pt comparisons.jsonl; then
        keep 500
        fit --questions 0 --epochs $epochs
    fi
    if begin "pairs-$epochs" sft.pt comparisons.jsonl; then
        keep 500
        "$python" -m experiments.pairs split < "$run/comparisons.jsonl" > "$run/pairs.jsonl"
        fit --comparisons "$run/pairs.jsonl" --batch 128 --epochs $epochs   # as many pairs per step
    fi
done
for size in "1 1 32" "2 2 64" "4 3 96"; do
    read -r layers heads channels <<< "$size"
    begin "size-${layers}x$channels" sft.pt base.pt comparisons.jsonl || continue
    keep 1000
    if [ $channels != 96 ]; then        # the finished run's base model has the last size
        py pretrain.py --n-layer $layers --n-head $heads --n-embd $channels
    fi
    fit --init-from base
done
plot points rm accuracy_labels accuracy_utility reads_wrong reads_same_kind
