#!/usr/bin/env bash
# How often is the judge right, before anything is trained on its verdicts?
#
# Lee et al. (arXiv 2309.00267, table 4 and appendix B): larger labelers agree with people on more
# pairs (62.7, 73.8, 78.0 %) and pick the same position after a swap on fewer (56, 21, 18 %).
#
# JUDGES="2x48 4x96" adds a judge of 2 layers and width 48, which is pretrained first.

source "$(dirname "$0")/common.sh"

for size in ${JUDGES:-4x96}; do
    enter "$size" comparisons.jsonl
    if [ "$size" = 4x96 ]; then
        enter "$size" base.pt
    else
        once base.pt pretrain.py --resume --n-layer "${size%x*}" --n-embd "${size#*x}"
    fi
    once judge.json -m later.judge --resume
done
table judge.json correct same_position labeler
