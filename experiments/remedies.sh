#!/usr/bin/env bash
# Do several reward models prevent over-optimisation where one does not? Three see the same rankings
# in different order. Beta is small enough that one of them is over-optimised (dial.sh).
source "$(dirname "$0")/common.sh"

if begin one sft.pt comparisons.jsonl; then
    for member in 3 2 1; do
        SEED=$SEED$member py reward.py
        cp "$run/reward.pt" "$run/reward-$member.pt"
    done
    py ppo.py --beta 0.02
    evaluate
fi
for how in mean worst; do
    begin $how sft.pt comparisons.jsonl || continue
    cp "$OUT/seed-$SEED/one"/reward*.pt "$run/"
    py experiments.other_reward --reward $how --beta 0.02
    evaluate
done
plot points ppo score utility correct kl
