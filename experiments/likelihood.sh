#!/usr/bin/env bash
# Does a reward model gain from the answer's log-likelihood (likelihood.py)? Its optimum favours a
# lower temperature, so the two reward models have to be compared greedily as well.
source "$(dirname "$0")/common.sh"

for beta in 0.1 0.2; do
    if begin "plain-$beta" sft.pt reward.pt comparisons.jsonl; then
        py ppo.py --beta $beta
        py eval.py
    fi
    if begin "likelihood-$beta" sft.pt reward.pt comparisons.jsonl; then
        py experiments.likelihood --beta $beta
        py eval.py
    fi
done
table sft,ppo correct correct_greedy utility utility_greedy kl
