#!/usr/bin/env bash
# Verifiable rewards: what does a verifier have to check, so that the policy learns the task?
#
# The prompts have one correct answer each, and there is no KL penalty. The reward is a strict
# verifier (one true sentence that contains what is required), a loose one (the required words
# occur), or the reward model; the algorithm GRPO, Dr. GRPO, RLOO, or PPO with a value function.
#
# Look for: the loose verifier's own verdict next to the fraction of correct answers; whether greedy
# SFT, or any of 64 answers of SFT, was correct already (is it sharpening?); other prompts (_other).
source "$(dirname "$0")/../../experiments/common.sh"

if begin rl sft.pt reward.pt; then
    py later.grpo --name strict
    py later.grpo --name strict_dr --method dr_grpo
    py later.grpo --name strict_rloo --method rloo
    py later.grpo --name loose --reward loose
    py later.grpo --name model --reward model
    py later.verifiers --beta 0 --iterations 60 --episodes 128      # as many as the others
    measure --task verifiable --max-new-tokens 72 --k 64 \
        --models sft,strict,strict_dr,strict_rloo,ppo,loose,model
fi
plot rows correct correct_greedy pass_at_k strict loose kl utility
plot rows correct_other utility_other correct_greedy_other lm_loss
