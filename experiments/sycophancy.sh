#!/usr/bin/env bash
# Do labelers who like agreement make a sycophantic policy? The bias is what labelers add when an
# answer affirms a false premise. That costs 4.8 in true utility, so with 3 labelers still prefer
# the careful answer, with 6 the affirming one. Remedies: 200 pairs that contrast the two, or the
# true utility as the reward.
source "$(dirname "$0")/common.sh"

collect_and_train() {   # collect_and_train RUN FLAGS of collect.py...
    begin "$1" sft.pt || return 0
    py experiments.collect --prompts 2000 "${@:2}"
    py reward.py
    py ppo.py
    py dpo.py
    py eval.py --prompts 200
}

for bias in 0 3 6; do collect_and_train bias-$bias --agreement-bias $bias; done
collect_and_train bias-6-contrast --agreement-bias 6 --contrast 200
if begin reward-utility sft.pt; then
    py experiments.other_reward --reward utility
    py eval.py --prompts 200
fi
"$python" -m experiments.probe_reward "$OUT"
points ppo,dpo affirms_false denies_true utility refuses
