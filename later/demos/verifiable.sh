#!/usr/bin/env bash
# Verifiable rewards: what does it take for a policy to be paid for the right thing?
#
# The same prompts, each with one checkable answer, and no KL penalty: paid by the reward model, by a
# loose verifier (the expected words are contained) and by a strict one (one sentence that parses,
# says what was asked for and nothing false). Tulu 3 (arXiv 2411.15124) finds that RLVR raises what is
# verified and can lower the rest; Gao et al. (2210.10760) that a reward model is over-optimised.
#
# Look for: the loose verifier's own verdict against the share that is right; other kinds of prompts;
# what the pretraining loss (strict-ptx) pays; GRPO, Dr. GRPO and RLOO on one signal, and PPO with a
# value function; the length of wrong answers; groups of 2 to 16.

source "$(dirname "$0")/common.sh"
run=$OUT/seed-$SEED/runs
mkdir -p "$run"
for file in sft.pt reward.pt; do cp -n "$FROM/$file" "$run/" || true; done

once() {    # once FILE SCRIPT FLAGS...   unless that run has left its file
    if [ -e "$run/$1" ]; then echo "skipped: $run/$1 exists"; return; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    py "${@:2}"
}

once strict.pt     -m later.grpo --signal strict
once loose.pt      -m later.grpo --signal loose
once reward_model.pt -m later.grpo --signal reward --name reward_model
once strict_ptx.pt -m later.grpo --signal strict --ptx 1 --name strict_ptx
once strict_dr.pt  -m later.grpo --signal strict --method dr_grpo --name strict_dr
once strict_rloo.pt -m later.grpo --signal strict --method rloo --name strict_rloo
once ppo_verified.json -m later.ppo_verified --beta 0 --iterations 60
once groups.json   -m later.groups
"$python" -m later.demos.tables verifiable "$OUT"
