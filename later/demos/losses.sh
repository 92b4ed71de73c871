#!/usr/bin/env bash
# Ten preference losses, each with four values of its hyperparameter, on the same 400 rankings.
#
# The losses move the policy by different amounts, so the second table compares them where they are
# equally far from SFT: true utility at equal KL.

source "$(dirname "$0")/common.sh"

same="--prompts 400 --lr 3e-4"
as_trained sft ppo
for beta in 0.05 0.1 0.3 1; do
    for loss in dpo cdpo rdpo hinge nll kto; do learn $loss-$beta $loss $same --beta $beta; done
done
for tau in 0.03 0.1 0.3 1; do learn ipo-$tau ipo $same --tau $tau; done
for beta in 1 3 10 30; do learn norm-$beta norm $same --beta $beta; done
for beta in 1 2.5 5 10; do learn simpo-$beta simpo $same --beta $beta; done
for lam in 0.1 0.3 1 3; do learn orpo-$lam orpo $same --lam $lam; done
table_of_policies
table at 0.2 0.4 0.6
