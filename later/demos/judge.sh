#!/usr/bin/env bash
# How often is the judge right, before anything is trained on its verdicts?
#
# Lee et al. (arXiv 2309.00267, table 4 and appendix B): larger labelers agree with people on more
# pairs (62.7, 73.8, 78.0 %) and pick the same position after a swap on fewer (56, 21, 18 %).
#
# JUDGES="2x48 4x96 6x128 4x96-48000" adds two sizes, which are pretrained first, and more pages.

source "$(dirname "$0")/common.sh"

for judge in ${JUDGES:-4x96}; do
    begin "$judge" base.pt sft.pt || continue
    size=${judge%-*} pages=16000
    if [ "$size" != "$judge" ]; then pages=${judge#*-}; fi
    if [ "$size" != 4x96 ]; then
        py pretrain.py --n-layer "${size%x*}" --n-embd "${size#*x}" \
            --n-head $(((${size#*x} + 31) / 32))
    fi
    py -m later.judge --pages "$pages"
done
"$python" experiments/plot.py table "$OUT" helpful,harmless correct correct_one_order \
    same_position labeler
