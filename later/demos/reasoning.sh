#!/usr/bin/env bash
# Reasoning, in small: sums of four to six numbers, worked one step a sentence by people who slip.
#
# RL on the final answer alone (RLVR; DeepSeek-R1, arXiv 2501.12948) against imitation of one's own
# right answers (STaR, 2203.14465) and of as many random ones. Yue et al. (2504.13837) find that RLVR
# makes likelier what the model could already say: right at 1 rises, right among k does not.
#
# Look for: right against samples; traces, which nobody pays for; sums of seven and eight numbers,
# longer than any in training; majority vote and any right of 8 before and after.

source "$(dirname "$0")/common.sh"
run=$OUT/seed-$SEED/runs
mkdir -p "$run"
cp -n "$FROM/base.pt" "$run/" || true

once() {    # once FILE SCRIPT FLAGS...   unless that run has left its file
    if [ -e "$run/$1" ]; then echo "skipped: $run/$1 exists"; return; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    py "${@:2}"
}

rl="-m later.grpo --begin chains --max-new-tokens 64"
once chains_base.pt -m later.reasoning --stage base
once chains.pt      -m later.reasoning --stage sft
once final.pt       $rl --signal final
once best.pt        -m later.reasoning --stage best --name best
once random.pt      -m later.reasoning --stage best --keep random --name random
once reasoning.json -m later.reasoning --stage measure --models chains,final,best,random
"$python" -m later.demos.tables reasoning "$OUT"
