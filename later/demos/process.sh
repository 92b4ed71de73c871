#!/usr/bin/env bash
# Process supervision: is it worth knowing which step is wrong?
#
# A process reward model learns steps, by the truth or by Monte Carlo completions (Math-Shepherd,
# arXiv 2312.08935), an outcome reward model learns final answers, from the same answers. Lightman et
# al. (2305.20050) find best of n by process above outcome above majority vote; Uesato et al.
# (2211.14275) that both find right answers alike and process finds right traces.
#
# Look for: the share of lucky chains first, under 2 % all must tie; best of 64; traces among right
# answers; then RL paid by steps, by the process reward model, or by the final answer.
# It goes on from later/demos/reasoning.sh of the same seed.

source "$(dirname "$0")/common.sh"
run=$ALL/reasoning/seed-$SEED/runs
if [ ! -e "$run/chains.pt" ]; then
    echo "error: $run/chains.pt not found; run SEED=$SEED bash later/demos/reasoning.sh" >&2; exit 1
fi

once() {    # once FILE SCRIPT FLAGS...   unless that run has left its file
    if [ -e "$run/$1" ]; then echo "skipped: $run/$1 exists"; return; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    py "${@:2}"
}

rl="-m later.grpo --begin chains --max-new-tokens 64"
once steps.jsonl  -m later.completions
once prm.pt       -m later.process --labels truth
once orm.pt       -m later.process --labels outcome
once prm_hard.pt  -m later.process --labels hard
once prm_soft.pt  -m later.process --labels soft
once best_of.json -m later.best_of
once steps.pt     $rl --signal steps
once by_prm.pt    $rl --signal prm --name by_prm
"$python" -m later.demos.tables process "$ALL/reasoning"
