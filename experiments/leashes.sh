#!/usr/bin/env bash
# Two leashes: the clip keeps a policy near the last one, the KL near the first one.
#
# Without the clip PPO works but is more fragile, without the KL it runs away, with both it is the
# workhorse: is it so? With one pass over a rollout the clip hardly acts, since the ratio starts at
# 1; so four passes are tried too, and a high learning rate. A clip of 1e6 is none, of the ratio and
# of the value alike.
#
# Look for: score, true utility, KL, and how many runs collapse (true utility under SFT's).

source "$(dirname "$0")/common.sh"

for passes in 1 4; do
    for lr in 2e-4 1e-3; do
        for leashes in "clip-kl --clip 0.2 --beta 0.1" "clip --clip 0.2 --beta 0" \
                       "kl --clip 1e6 --beta 0.1" "none --clip 1e6 --beta 0"; do
            read -r name flags <<< "$leashes"
            begin "passes-$passes-lr-$lr-$name" sft.pt reward.pt || continue
            py experiments/passes.py --passes $passes --lr $lr --iterations 30 $flags
            py eval.py $small
        done
    done
done
"$python" experiments/figures.py leashes "$OUT"
