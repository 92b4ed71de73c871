#!/usr/bin/env bash
# Does a small PPO model beat a large SFT model? Four sizes; the finished run is the largest.
source "$(dirname "$0")/common.sh"

for size in "1 1 32" "2 2 64" "3 3 96"; do
    read -r layers heads channels <<< "$size"
    begin "${layers}x$channels" || continue
    py pretrain.py --resume --n-layer $layers --n-head $heads --n-embd $channels
    py sft.py --resume
    py compare.py
    py reward.py --resume
    py ppo.py --resume
    py ppo.py --resume --ptx 1
    py eval.py
done
as_trained
plot table base,base_few_shot,sft,ppo utility correct
plot figure1
