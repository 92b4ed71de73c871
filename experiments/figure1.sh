#!/usr/bin/env bash
# Figure 1 of the paper in small: how good is each kind of model, by size?
#
# Labelers preferred 1.3B InstructGPT to 175B GPT-3, a hundred times its size, prompted or not
# (section 4.1). Here the whole recipe is run at three sizes, each three to four times the one
# before, the finished run the largest; every model is compared with the largest's SFT model.
#
# Look for: base < few-shot < SFT < PPO at every size, and a small PPO model above the largest base
# model on its page. SIZES="6 5 160" adds a larger one (layers, heads, channels; commas between).

source "$(dirname "$0")/common.sh"

IFS=, read -ra sizes <<< "${SIZES:-1 1 32,2 2 64}"
for size in "${sizes[@]}"; do
    read -r layers heads channels <<< "$size"
    begin "${layers}x$channels" || continue
    py sft.py --resume --stage pretrain --n-layer "$layers" --n-head "$heads" --n-embd "$channels"
    py sft.py --resume
    py compare.py
    py reward.py --resume
    py ppo.py --resume
    py ppo.py --resume --ptx 1
    py eval.py
done
as_trained
"$python" experiments/figures.py figure1 "$OUT"
