#!/usr/bin/env bash
# Does another round of labels help? Round 1 is the finished run. Rounds 2 and 3 add rankings of
# the last policy's answers (section 3.1 of the paper) and train a new reward model and policy on
# all. The runs low-beta show what a weak KL penalty does with each round's reward model.
source "$(dirname "$0")/common.sh"

as_trained
last_round=$finished
for round in 1 2 3; do
    if [ $round != 1 ] && begin "round-$round" sft.pt; then
        cp "$last_round/ppo.pt" "$run/last.pt"
        py compare.py --init-from last
        grep '"split": "train"' "$last_round/comparisons.jsonl" >> "$run/comparisons.jsonl"
        py reward.py
        py ppo.py
        py eval.py
    fi
    if [ $round != 1 ]; then last_round=$OUT/seed-$SEED/round-$round; fi
    begin "round-$round-low-beta" sft.pt || continue
    cp "$last_round/reward.pt" "$last_round/comparisons.jsonl" "$run/"
    py ppo.py --beta 0.02 --lr 4e-4
    evaluate
done
plot points ppo correct utility stock_answer kl
plot table rm accuracy_utility reads_wrong reads_frequent reads_terse
