#!/usr/bin/env bash
# Why three stages? Each is left out, replaced or enlarged; the model that results is measured in
# PPO's place, whatever trained it, and compared with the SFT model of the finished run.
source "$(dirname "$0")/common.sh"

measure_as_ppo() {      # measure_as_ppo CHECKPOINT
    if [ "$1" != ppo ]; then mv "$run/$1.pt" "$run/ppo.pt"; fi
    cp "$finished/sft.pt" "$run/"
    evaluate
}

as_trained
for method in ppo dpo; do                                                 # no SFT
    begin $method-from-base base.pt reward.pt comparisons.jsonl || continue
    py $method.py --init-from base
    measure_as_ppo $method
done
if begin reward-from-base base.pt sft.pt comparisons.jsonl; then
    py reward.py --init-from base
    py ppo.py
    measure_as_ppo ppo
fi
if begin paid-by-labelers sft.pt; then      # no reward model: a labeler rates each of PPO's answers
    py experiments.other_reward --reward labelers
    measure_as_ppo ppo
fi
for n in 14000 28000; do                                # 1.75 and 3.5 times the demonstrations
    begin "sft-$n" base.pt || continue
    py sft.py --demonstrations $n
    measure_as_ppo sft
done
if begin sft-after-ppo ppo.pt; then
    py sft.py --init-from ppo
    measure_as_ppo sft
fi
plot table ppo,sft utility_greedy
plot points ppo win_utility win_utility_greedy utility kl
