#!/usr/bin/env bash
# The clip keeps a policy close to the last one, the KL penalty close to the first one: which one
# does the work? With two steps per batch the ratio stays near 1 and the clip hardly acts, so 16
# steps and a high learning rate are tried as well. A clip of 1e6 is none.
source "$(dirname "$0")/common.sh"

none="--clip 1e6 --value-clip 1e6"
for minibatch in 64 8; do
    for lr in 2e-4 1e-3; do
        for setting in "clip-kl --beta 0.1" "clip --beta 0" \
                       "kl --beta 0.1 $none" "none --beta 0 $none"; do
            read -r label flags <<< "$setting"
            run_name=minibatch-$minibatch-lr-$lr-$label
            begin "$run_name" sft.pt reward.pt comparisons.jsonl || continue
            py ppo.py --minibatch $minibatch --lr $lr --iterations 30 $flags
            py eval.py $small
        done
    done
done
points ppo score utility correct kl
