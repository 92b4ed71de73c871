#!/usr/bin/env bash
# Nine preference losses in four settings. PARTS="losses flips" runs some of them.
#
# losses    Each loss with three values of its hyperparameter, on the same 400 rankings. The losses
#           move the policy by different amounts, so a second table compares true utility at equal
#           KL to SFT.
# flips     25 % of the training labels are flipped. rDPO (arXiv 2403.00409) is told this fraction
#           and corrects for it in expectation, cDPO trusts every label less. The data are pairs, so
#           that every label is flipped independently.
# long      The labelers add 1.5 to the utility of an answer that is e times as long. SimPO divides
#           log-probs by the length; R-DPO (length) has a price per token.
# orpo      ORPO (2403.07691) from the base model; the losses above start from SFT.

source "$(dirname "$0")/../../experiments/common.sh"

learn() {   # learn RUN FILE LOSS FLAGS...   FILE: the comparisons
    begin "$1" sft.pt "$2" || return 0
    py later.preferences --loss "${@:3}"
    measure --models "$3"
}

losses() {
    local file=comparisons.jsonl same="--prompts 400 --lr 3e-4"
    if begin sft sft.pt; then measure; fi
    for beta in 0.3 1 3; do
        for loss in dpo cdpo rdpo nll kto; do
            learn $loss-$beta $file $loss $same --beta $beta
        done
    done
    for tau in 0.05 0.1 0.3; do learn ipo-$tau $file ipo $same --tau $tau; done
    for lr in 0.00003 0.0001 0.0003; do    # without a reference only the rate limits the KL
        learn simpo-$lr $file simpo --prompts 400 --lr $lr --beta 10
    done
    for lam in 0.1 1 3; do learn orpo-$lam $file orpo $same --lam $lam; done
}

flips() {
    for flip in 0 0.25; do
        local same="--pairs --flip $flip --lr 1.5e-4 --prompts 1200" file=comparisons.jsonl
        learn dpo-flipped-$flip $file dpo $same --beta 0.5
        learn rdpo-flipped-$flip $file rdpo $same --beta 0.5 --eps 0.25
        learn cdpo-flipped-$flip $file cdpo $same --beta 0.5 --eps 0.25
        learn ipo-flipped-$flip $file ipo $same --tau 0.3
        learn kto-flipped-$flip $file kto $same --beta 0.5
    done
}

long() {
    if begin labels-long sft.pt; then
        py compare.py --length-bias 1.5 --prompts 500
        measure
    fi
    local file=$run/comparisons.jsonl
    for beta in 0.3 1; do learn long-dpo-$beta "$file" dpo --lr 3e-4 --beta $beta; done
    for price in 0.05 0.15; do
        learn long-length-$price "$file" length --lr 3e-4 --beta 1 --token-price $price
    done
    for lr in 0.00005 0.0001; do learn long-simpo-$lr "$file" simpo --lr $lr --beta 10; done
}

orpo() {
    for lam in 0 0.1 1; do
        begin orpo-from-base-$lam base.pt comparisons.jsonl || continue
        py later.preferences --loss orpo --init-from base --lam $lam --lr 1e-3 --prompts 1200
        measure --models orpo --reference base
    done
}

for part in ${PARTS:-losses flips long orpo}; do $part; done
plot rows utility correct utility_greedy correct_greedy kl length
plot at-kl 0.5 1
