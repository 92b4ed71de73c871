#!/usr/bin/env bash
# Process supervision: what is gained by knowing which step is wrong?
#
# A process reward model learns steps, labelled by the truth or by completions (Math-Shepherd, arXiv
# 2312.08935); an outcome reward model learns final answers. Both see the same answers. Lightman
# et al. (2305.20050) find best of n by process above outcome above majority vote; Uesato et al.
# (2211.14275) that both find as many correct answers, and process more correct traces.
#
# Look for: the fraction of lucky chains first, as without any all must tie; best of 64; traces
# among correct answers; then RL on steps, on the process reward model, or on the final answer.
#
# It continues in the folder of later/demos/reasoning.sh of the same seed.

source "$(dirname "$0")/common.sh"
OUT=$ALL/reasoning
run=$OUT/seed-$SEED/runs
if [ ! -e "$run/final.pt" ]; then
    echo "error: no $run/final.pt; run SEED=$SEED bash later/demos/reasoning.sh first" >&2
    exit 1
fi
once() {        # once FILE SCRIPT FLAGS...   unless FILE exists
    local last=$1
    begin runs || return 0
    py "${@:2}"
}
grpo=(-m later.reasoning --resume) label=() choose=() measure=(-m later.measure --task sums)
if [ "$TINY" = 1 ]; then
    label=(--sums 40 --completions 2 --max-new-tokens 16)
    choose=(--sums 2 --n 4 --max-new-tokens 16)
    grpo+=(--iterations 2 --prompts 2 --minibatch 8 --max-new-tokens 8)
    measure+=(--n 4 --k 2 --max-new-tokens 8)
fi

once steps.jsonl -m later.completions "${label[@]}"
once prm.pt      -m later.process --resume --labels truth
once orm.pt      -m later.process --resume --labels outcome
once prm_hard.pt -m later.process --resume --labels hard
once prm_soft.pt -m later.process --resume --labels soft
once best_of.json -m later.best_of "${choose[@]}"
once steps.pt    "${grpo[@]}" --name steps --reward steps
once by_prm.pt   "${grpo[@]}" --name by_prm --reward prm
rm -f "$run/reasoning.json"             # measured again, with the two new policies
once reasoning.json "${measure[@]}" --models chains,final,star,random,steps,by_prm
for file in steps.json best_of.json reasoning.json; do table $file; done
