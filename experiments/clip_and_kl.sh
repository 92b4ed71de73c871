#!/usr/bin/env bash
# Clip and KL penalty: which one does the work? With the recipe's four steps per batch the ratio stays
# near 1, so here are 16 steps, at the recipe's and at a high learning rate. A clip of 1e6 is none.
source "$(dirname "$0")/common.sh"

for lr in 2e-4 1e-3; do
    for setting in "clip-kl --beta 0.1" "clip --beta 0" \
                   "kl --beta 0.1 --clip 1e6 --value-clip 1e6" \
                   "none --beta 0 --clip 1e6 --value-clip 1e6"; do
        read -r label flags <<< "$setting"
        run_ppo lr-$lr-$label --minibatch 16 --lr $lr --iterations 20 $flags
    done
done
plot points ppo score utility correct kl
