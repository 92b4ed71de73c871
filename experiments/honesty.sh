#!/usr/bin/env bash
# Helpful against honest: what labelers think of "I do not know".
#
# Askell et al. (arXiv 2112.00861) name the conflict. --confidence-bias is what labelers add when an
# answer claims something about a thing that does not exist, --doubt-bias what they add for
# "I do not know", whether or not it is known. An invention costs about 3 in true utility (half the
# task, 1 for itself, some for its length): a confidence of 3 makes up for that, 6 for more.
#
# One question in 28 is about a thing that does not exist, and SFT seldom invents: what labelers say
# to it would hardly ever come up. So they are asked about 1,000 more of these, and PPO trains on
# the prompts that they were asked about.
#
# Look for: what the reward model likes better than the careful answer; inventions about unknown
# things against answers withheld on known ones. Pushing one down pushes the other up only if the
# policy cannot tell the two kinds of question apart.

source "$(dirname "$0")/common.sh"

for bias in "confidence-bias 0" "confidence-bias 3" "confidence-bias 6" "doubt-bias 3"; do
    begin "${bias/ /-}" sft.pt || continue
    py experiments/asking.py --prompts 2000 --unknown 1000 --$bias
    py reward.py
    py ppo.py --prompts "$run/comparisons.jsonl"
    py dpo.py
    py eval.py --prompts 200
done
"$python" experiments/liking.py "$OUT"
"$python" experiments/plot.py table "$OUT" sft invented withheld gold
"$python" experiments/plot.py points "$OUT" ppo,dpo invented withheld gold win_labelers kl
