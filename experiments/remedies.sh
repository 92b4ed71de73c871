#!/usr/bin/env bash
# Do several reward models prevent over-optimisation where one does not? Three see the same rankings
# in different order. Beta is small enough that one of them is over-optimised (dial.sh).
source "$(dirname "$0")/common.sh"

if begin one sft.pt comparisons.jsonl; then
    for member in 1 2 3; do
        py reward.py --seed "$SEED$member"
        mv "$run/reward.pt" "$run/reward-$member.pt"
    done
    cp "$run/reward-1.pt" "$run/reward.pt"
    py ppo.py --beta 0.02
    py eval.py $small
fi
for how in mean worst variance; do
    begin $how sft.pt comparisons.jsonl || continue
    cp "$OUT/seed-$SEED/one"/reward*.pt "$run/"
    py experiments.other_reward --reward $how --beta 0.02
    py eval.py $small
done
points ppo score utility correct kl
