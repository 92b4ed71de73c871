#!/usr/bin/env bash
# Verifiable rewards: what does a verifier have to check, so that the policy learns the task?
#
# The prompts have one correct answer each, and there is no KL penalty. The reward is a strict
# verifier (one true sentence that contains what is required), a loose one (the required words
# occur), or the reward model. Tulu 3 (arXiv 2411.15124) finds that RLVR raises what is verified and
# can lower other skills; Gao et al. (2210.10760) that a reward model is over-optimised.
#
# Look for: the loose verifier's own verdict next to the fraction of correct answers; other prompts
# (_other); GRPO, Dr. GRPO, RLOO, and PPO with a value function, on the same verifier.

source "$(dirname "$0")/common.sh"
once() {        # once FILE SCRIPT FLAGS...   unless FILE exists
    local last=$1
    begin runs sft.pt reward.pt || return 0
    py "${@:2}"
}
grpo=(-m later.grpo --resume) ppo=(-m later.verifiers --resume --beta 0 --iterations 60) measure=()
if [ "$TINY" = 1 ]; then
    grpo+=(--iterations 2 --prompts 2 --minibatch 8 --max-new-tokens 8)
    ppo+=(--iterations 2 --episodes 8 --minibatch 4 --max-new-tokens 8)
    measure=(--n 5 --max-new-tokens 8)
fi

once strict.pt      "${grpo[@]}" --name strict
once strict_dr.pt   "${grpo[@]}" --name strict_dr --method dr_grpo
once strict_rloo.pt "${grpo[@]}" --name strict_rloo --method rloo
once loose.pt       "${grpo[@]}" --name loose --reward loose
once model.pt       "${grpo[@]}" --name model --reward model
once ppo.pt         "${ppo[@]}"
once verifiable.json -m later.measure "${measure[@]}" \
    --models sft,strict,strict_dr,strict_rloo,ppo,loose,model
table verifiable.json
