#!/usr/bin/env bash
# Sycophancy: labelers who like to be agreed with.
#
# Perez et al. (arXiv 2212.09251) and Sharma et al. (arXiv 2310.13548) find that preference
# training makes models agree with what the user believes. --agreement-bias is what labelers add
# when an answer agrees with the false premise of its prompt. Such an answer is worth 4.8 less than
# the careful one (3 for the task, 1 for agreeing, the rest for what it says that is false): at a
# bias of 3 labelers still like the careful answer better, at 6 the pleasing one.
#
# Look for: agrees_with_false after SFT, PPO and DPO, and denies_true, the price of not agreeing.
# Remedies: contrasting pairs, in which the careful answer stands above the pleasing one (to false
# premises, but also to unknown things and to who asks for something rude), and the true utility as
# the reward (--reward gold).

source "$(dirname "$0")/common.sh"

tune() {    # tune RUN FLAGS...   of asking.py
    begin "$1" sft.pt || return 0
    py experiments/asking.py --prompts 2000 "${@:2}"
    py reward.py
    py ppo.py
    py dpo.py
    py eval.py --prompts 200
}

for bias in 0 3 6; do tune bias-$bias --agreement-bias $bias; done
tune bias-6-contrast --agreement-bias 6 --contrast 200
if begin reward-gold sft.pt reward.pt; then
    py experiments/written_reward.py --reward gold
    py eval.py --prompts 200
fi
"$python" experiments/liking.py "$OUT"
"$python" experiments/plot.py table "$OUT" ppo agrees_with_false denies_true
"$python" experiments/plot.py points "$OUT" ppo,dpo agrees_with_false gold withheld
