#!/usr/bin/env bash
# What does the reward model learn from: prompts, answers a prompt, passes, whose labels, its size?
#
# The paper: K from 4 to 9 with all pairs of a prompt as one element; shuffled pairs overfit
# within one epoch (section 3.5). Cross-validated over five groups of labelers, 72.4 % on the
# labelers it was trained on and 69.6 % on those held out (section 4.1). A 6B reward model for
# every policy, since larger ones trained less stably (appendix C.2).
#
# Look for: right on true order and reads_wrong (the careful answer above its wrong variant) by
# prompts, with the likelihood and as the paper's plain head; by K at equal prompts; of shuffled
# pairs after one and three passes, beside whole prompts; by size, each from a base model of that
# size. A fold's labelers are held out from training: compare its labels with theirs.

source "$(dirname "$0")/common.sh"

keep() {    # keep N   of the run's rankings the first N, and all that are held out
    { grep -m "$1" '"split": "train"' "$run/comparisons.jsonl"
      grep '"split": "valid"' "$run/comparisons.jsonl"; } > "$run/kept"
    mv "$run/kept" "$run/comparisons.jsonl"
}
fit() {     # fit FLAGS OF reward.py...
    py reward.py "$@"
    py eval.py --prompts 100 --probes 1
}
some() {    # some RUN N FLAGS OF reward.py...
    begin "$1" sft.pt comparisons.jsonl || return 0
    keep "$2"
    fit "${@:3}"
}
asked() {   # asked RUN FLAGS OF asking.py...
    begin "$1" sft.pt || return 0
    py experiments/asking.py "${@:2}"
    fit
}
pairs() {   # pairs RUN N FLAGS OF reward.py...   64 pairs a step, about as many as six prompts have
    begin "$1" sft.pt comparisons.jsonl || return 0
    keep "$2"
    "$python" experiments/shuffled.py "$run/comparisons.jsonl" "$run/pairs.jsonl"
    fit --comparisons "$run/pairs.jsonl" --batch 64 "${@:3}"
}
size() {    # size LAYERS HEADS CHANNELS   a base model of that size, then 1,000 rankings
    begin "size-$1x$3" sft.pt comparisons.jsonl || return 0
    keep 1000
    py sft.py --stage pretrain --n-layer "$1" --n-head "$2" --n-embd "$3"
    fit --begin base
}

for n in 100 300 1000 4000; do
    some "prompts-$n" "$n"
    some "plain-$n" "$n" --no-likelihood
done
for k in 2 4 9; do asked "k-$k" --k "$k" --prompts 500; done
for epochs in 1 3; do
    some "whole-$epochs" 500 --epochs "$epochs"
    pairs "pairs-$epochs" 500 --epochs "$epochs"
done
for fold in 0 1 2 3 4; do asked "fold-$fold" --fold "$fold" --prompts 600; done
size 1 1 32
size 2 2 64
if begin size-4x96 sft.pt base.pt comparisons.jsonl; then      # the finished run's own base model
    keep 1000
    fit --begin base
fi
"$python" experiments/plot.py table "$OUT" rm accuracy_labels accuracy_heldout_labelers \
    accuracy_gold reads_wrong reads_same_kind
"$python" experiments/figures.py learns "$OUT"
