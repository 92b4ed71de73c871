#!/usr/bin/env bash
# Why three stages? Each is left out, or enlarged, in turn.
#
# as-trained         the finished run: SFT, reward model, PPO
# ppo-from-base      no SFT: most of what it samples are lists of prompts
# dpo-from-base      the same by DPO, on the same rankings
# reward-from-base   the reward model begins with the base model instead of SFT's
# paid-by-labelers   no reward model: a labeler looks at each of PPO's 8,960 answers once, 90 days
#                    at a hundred a day; the rankings took a look at each answer of
#                    comparisons.jsonl, but score for ever
# sft-14000, -28000  SFT alone with about two and four times its 8,000 demonstrations
# sft-after-ppo      the stages in another order
#
# Look for: win_gold against the SFT model of the finished run.

source "$(dirname "$0")/common.sh"

as_trained
if begin ppo-from-base base.pt sft.pt reward.pt; then
    py ppo.py --begin base
    py eval.py $small
fi
if begin dpo-from-base base.pt sft.pt comparisons.jsonl; then
    as_row dpo py dpo.py --begin base
    py eval.py $small
fi
if begin reward-from-base base.pt sft.pt comparisons.jsonl; then
    py reward.py --begin base --comparisons "$run/comparisons.jsonl"
    py ppo.py
    py eval.py $small
fi
if begin paid-by-labelers sft.pt reward.pt; then
    py experiments/written_reward.py --reward labelers
    py eval.py $small
fi
for n in 14000 28000; do
    begin "sft-$n" base.pt sft.pt || continue
    as_row sft py sft.py --demonstrations "$n"
    py eval.py $small
done
if begin sft-after-ppo ppo.pt sft.pt; then
    as_row sft py sft.py --begin ppo
    py eval.py $small
fi
"$python" experiments/figures.py stages "$OUT"
"$python" experiments/plot.py table "$OUT" rm accuracy_gold
