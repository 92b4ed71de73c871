#!/usr/bin/env bash
# Clip and KL penalty: which one does the work? With two steps per batch the ratio stays near 1, so
# 16 steps and a high learning rate are tried as well. A clip of 1e6 is none.
source "$(dirname "$0")/common.sh"

for minibatch in 64 8; do
    for lr in 2e-4 1e-3; do
        for setting in "clip-kl --beta 0.1" "clip --beta 0" \
                       "kl --beta 0.1 --clip 1e6 --value-clip 1e6" \
                       "none --beta 0 --clip 1e6 --value-clip 1e6"; do
            read -r label flags <<< "$setting"
            run_ppo minibatch-$minibatch-lr-$lr-$label \
                --minibatch $minibatch --lr $lr --iterations 30 $flags
        done
    done
done
plot points ppo score utility correct kl
