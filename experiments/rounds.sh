#!/usr/bin/env bash
# Iterated rankings: ask again about what the policy says now.
#
# The paper collects comparisons of the current best policy's answers, trains a new reward model on
# all of them and a new policy on that (section 3.1). Round 1 is the finished run; rounds 2 and 3
# add rankings of the last policy's answers to the same prompts.
#
# Look for: reads_frequent and undeserved by round, right by round, and what a loose leash
# (beta 0.02) does with each round's reward model.

source "$(dirname "$0")/common.sh"

loose() {   # loose RUN   PPO on a loose leash with that round's reward model
    local model=$OUT/seed-$SEED/$1/reward.pt
    if [ "$1" = as-trained ]; then model=$FROM/reward.pt; fi
    begin "$1-loose" sft.pt || return 0
    cp "$model" "$run/reward.pt"
    py ppo.py --beta 0.02 --lr 4e-4
    py eval.py $small
}

as_trained
loose as-trained
last_round=$FROM
for round in 2 3; do
    if begin "round-$round" sft.pt; then
        cp "$last_round/ppo.pt" "$run/last.pt"
        py compare.py --begin last
        grep '"split": "train"' "$last_round/comparisons.jsonl" >> "$run/comparisons.jsonl"
        py reward.py
        py ppo.py
        py eval.py
    fi
    last_round=$OUT/seed-$SEED/round-$round
    loose "round-$round"
done
"$python" experiments/plot.py points "$OUT" ppo right gold undeserved kl
"$python" experiments/plot.py table "$OUT" rm accuracy_gold reads_wrong reads_frequent reads_terse
