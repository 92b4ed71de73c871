#!/usr/bin/env bash
# Ten losses on the same rankings, each over four values of its own knob.
#
# The literature promises much of each. Here all learn from the same 400 rankings with the same
# learning rate, and are compared where they are equally far from SFT: true utility at equal KL.
#
# Look for: is any row of the second table better than dpo's by more than the spread?

source "$(dirname "$0")/common.sh"

same="--prompts 400 --lr 3e-4"
as_trained sft ppo
for beta in 0.05 0.1 0.3 1; do
    learn dpo-$beta dpo $same --beta $beta
    learn cdpo-$beta cdpo $same --beta $beta
    learn rdpo-$beta rdpo $same --beta $beta
    learn hinge-$beta hinge $same --beta $beta
    learn nll-$beta nll $same --beta $beta
    learn kto-$beta kto $same --beta $beta
done
for tau in 0.03 0.1 0.3 1; do learn ipo-$tau ipo $same --tau $tau; done
for beta in 1 3 10 30; do learn norm-$beta norm $same --beta $beta; done
for beta in 1 2.5 5 10; do learn simpo-$beta simpo $same --beta $beta; done
for lam in 0.1 0.3 1 3; do learn orpo-$lam orpo $same --lam $lam; done
table at 0.2 0.4 0.6
