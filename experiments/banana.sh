#!/usr/bin/env bash
# Banana: what does a policy do for a reward that is plainly wrong?
#
# written_reward.py pays 1 for every "banana" in the answer; the reward model is not asked. The KL
# tether is all that stands between the policy and the word, as in the paper's equation 2. SFT says
# it once in a hundred answers, so PPO needs more and longer steps than usual to find it.
#
# Look for: beta 0 ends in banana banana banana, a high beta does not move, and in between sentences
# are still sentences, with more bananas in them.

source "$(dirname "$0")/common.sh"

for beta in 0 0.1 0.2 1; do
    begin "beta-$beta" sft.pt reward.pt || continue
    py experiments/written_reward.py --reward banana --beta "$beta" --iterations 60 --lr 4e-4
    py eval.py $small
done
"$python" experiments/plot.py points "$OUT" ppo bananas well_formed length kl gold
