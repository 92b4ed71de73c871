#!/usr/bin/env bash
# Does another round of labels help? Round 1 is the finished run. Rounds 2 and 3 add rankings of
# the last policy's answers (section 3.1 of the paper) and train a new reward model and policy on
# all. The runs low-beta show what a weak KL penalty does with the first and the last reward model,
# and with the mean of three that saw the same rankings in different order.
source "$(dirname "$0")/common.sh"

low_beta() {    # low_beta ROUND FOLDER   PPO with the reward model in that folder
    begin "round-$1-low-beta" sft.pt || return 0
    cp "$2/reward.pt" "$2/comparisons.jsonl" "$run/"
    py ppo.py --beta 0.02
    evaluate
}

as_trained
low_beta 1 "$finished"
last_round=$finished
for round in 2 3; do
    if begin "round-$round" sft.pt; then
        cp "$last_round/ppo.pt" "$run/last.pt"
        py compare.py --init-from last --prompts 2000
        grep '"split": "train"' "$last_round/comparisons.jsonl" >> "$run/comparisons.jsonl"
        py reward.py
        py ppo.py
        evaluate
    fi
    last_round=$OUT/seed-$SEED/round-$round
done
low_beta 3 "$last_round"
if begin three-models-low-beta sft.pt comparisons.jsonl; then
    for member in 3 2 1; do
        SEED=$SEED$member py reward.py
        cp "$run/reward.pt" "$run/reward-$member.pt"
    done
    py experiments.other_reward --reward mean --beta 0.02
    evaluate
fi
plot points ppo utility utility_greedy correct kl
plot table rm accuracy_utility reads_wrong reads_frequent reads_terse
