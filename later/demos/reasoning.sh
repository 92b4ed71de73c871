#!/usr/bin/env bash
# Reasoning on worked sums: additions of four to six numbers, one step per sentence.
#
# RL on the final answer alone (RLVR; DeepSeek-R1, arXiv 2501.12948) against imitation of one's own
# correct answers (STaR, 2203.14465) and, as a control, of as many random ones. Yue et al.
# (2504.13837) find that RLVR makes more likely what the model could already say: accuracy rises,
# and a correct answer among k samples does not become more frequent.
#
# Look for: traces, which no reward checks; sums of seven and eight numbers, longer than any in
# training; majority vote and pass@8 before and after.

source "$(dirname "$0")/common.sh"
once() {        # once FILE SCRIPT FLAGS...   unless FILE exists
    local last=$1
    begin runs base.pt || return 0
    py "${@:2}"
}
chains=(-m later.chains --resume) grpo=(-m later.reasoning --resume) star=(-m later.star --resume)
measure=(-m later.measure --task sums)
if [ "$TINY" = 1 ]; then
    chains+=(--pages 50 --steps 5 --demonstrations 40)
    grpo+=(--iterations 2 --prompts 2 --minibatch 8 --max-new-tokens 8)
    star+=(--rounds 2 --sums 4 --max-new-tokens 8)
    measure+=(--n 4 --k 2 --max-new-tokens 8)
fi

once chains.pt "${chains[@]}"
once final.pt  "${grpo[@]}" --name final
once star.pt   "${star[@]}"
once random.pt "${star[@]}" --name random --select random
once reasoning.json "${measure[@]}" --models chains,final,star,random
table reasoning.json
