#!/usr/bin/env bash
# The closed form: how near do PPO and DPO come to the optimum that both are after?
#
# pi* = ref exp(r / beta) / Z (arXiv 2305.18290, eq. 4). Where an answer is one token, all 1,024
# of them can be enumerated, so pi* is known exactly, and beta KL(pi || pi*) is what the objective
# still lacks. PPO gets the reward model's score of that token; DPO gets pairs that the same
# reward model ranked, noisily as Bradley and Terry assume, so both have the same optimum.
#
# Look for: KL(pi || pi*) in nats, from SFT's down, after 10, 40 and 160 iterations of PPO and after
# DPO, over beta.

source "$(dirname "$0")/common.sh"

last=optimum.json
one="--reward one_token --max-new-tokens 1 --prompts 200"
for beta in 0.1 0.3 1; do
    begin "beta-$beta" sft.pt reward.pt || continue
    py experiments/exact.py --measure rank --prompts 3500
    py dpo.py --beta "$beta" --max-new-tokens 1
    for iterations in 10 40 160; do
        py experiments/written_reward.py $one --beta "$beta" --iterations $iterations
        mv "$run/ppo.pt" "$run/ppo-$iterations.pt"
    done
    py experiments/exact.py --measure optimum --prompts 60 --beta "$beta"
done
"$python" experiments/figures.py optimum "$OUT"
