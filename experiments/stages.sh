#!/usr/bin/env bash
# Why three stages? Each is left out, or enlarged, in turn.
#
# as-trained   the finished run: SFT, reward model, PPO
# base-ppo     PPO from the base model, no SFT: most of what it samples are lists of prompts
# base-dpo     DPO from the base model on the same rankings
# base-rm      the reward model begins with the base model instead of SFT's
# no-rm        no reward model: a labeler looks at each of PPO's 4,864 answers once, 49 days at a
#              hundred a day; the rankings took about 23,000 looks, but then score for ever
# sft-2, -4    SFT alone with two and four times the demonstrations
# sft-last     SFT again after PPO: the stages in another order
#
# Look for: win_gold against the SFT model of the finished run.

source "$(dirname "$0")/common.sh"

as_trained
if begin base-ppo base.pt sft.pt reward.pt; then
    py ppo.py --begin base
    py eval.py $small
fi
if begin base-dpo base.pt sft.pt comparisons.jsonl; then
    py dpo.py --begin base
    py eval.py $small
fi
if begin base-rm base.pt sft.pt comparisons.jsonl; then
    py reward.py --begin base --comparisons "$run/comparisons.jsonl"
    py ppo.py
    py eval.py $small
fi
if begin no-rm sft.pt reward.pt; then
    py experiments/written_reward.py --reward labelers
    py eval.py $small
fi
for times in 2 4; do
    begin "sft-$times" base.pt sft.pt || continue
    as_row sft py sft.py --demonstrations $((7000 * times))
    py eval.py $small
done
if begin sft-last ppo.pt sft.pt; then
    as_row sft py sft.py --begin ppo
    py eval.py $small
fi
"$python" experiments/plot.py points "$OUT" ppo win_gold gold kl lists_prompts
"$python" experiments/plot.py table "$OUT" dpo win_gold gold kl lists_prompts
"$python" experiments/plot.py table "$OUT" rm accuracy_gold
