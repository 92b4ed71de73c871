#!/usr/bin/env bash
# Why three stages? Each is left out, replaced or enlarged; the model that results is measured in
# PPO's place, whatever trained it, and compared with the SFT model of the finished run.
source "$(dirname "$0")/common.sh"

measure_as_ppo() {      # measure_as_ppo CHECKPOINT
    mv "$run/$1.pt" "$run/ppo.pt.new"
    cp "$finished/sft.pt" "$run/sft.pt"
    mv "$run/ppo.pt.new" "$run/ppo.pt"
    py eval.py $small
}

as_trained
if begin ppo-from-base base.pt reward.pt comparisons.jsonl; then          # no SFT
    py ppo.py --init-from base
    measure_as_ppo ppo
fi
if begin dpo-from-base base.pt comparisons.jsonl; then
    py dpo.py --init-from base
    measure_as_ppo dpo
fi
if begin reward-from-base base.pt sft.pt comparisons.jsonl; then
    py reward.py --init-from base
    py ppo.py
    measure_as_ppo ppo
fi
if begin paid-by-labelers sft.pt; then                  # no reward model: a labeler rates each of
    py experiments.other_reward --reward labelers    # PPO's 8,960 answers
    measure_as_ppo ppo
fi
for n in 14000 28000; do                                # two and four times the demonstrations
    begin "sft-$n" base.pt || continue
    py sft.py --demonstrations $n
    measure_as_ppo sft
done
if begin sft-after-ppo ppo.pt; then
    py sft.py --init-from ppo
    measure_as_ppo sft
fi
points ppo win_utility utility kl
