#!/usr/bin/env bash
# Is the judge right? Before anything is trained on what it says.
#
# Lee et al. (arXiv 2309.00267, table 4 and appendix B): the larger the labeler, the more often it
# agrees with people (62.7, 73.8, 78.0 %), and the less often it picks the same position after the
# two answers are swapped (56, 21, 18 %).
#
# Look for: the share of pairs on which it is right, by what the rule speaks about; position; size.
# JUDGES="2x48 4x96 6x128 4x96-48000" adds two sizes, which are pretrained first, and three times as
# many pages.

source "$(dirname "$0")/common.sh"

for judge in ${JUDGES:-4x96}; do
    begin "$judge" base.pt sft.pt || continue
    size=${judge%-*} pages=16000
    if [ "$size" != "$judge" ]; then pages=${judge#*-}; fi
    if [ "$size" != 4x96 ]; then
        py sft.py --stage pretrain --n-layer "${size%x*}" --n-embd "${size#*x}" \
            --n-head $(((${size#*x} + 31) / 32))
    fi
    py -m later.judge --pages "$pages"
    py -m later.judge --stage test
done
for rule in helpful harmless; do
    printf '\n%s\n' "$rule"
    "$python" experiments/plot.py table "$OUT" $rule right right_one_order same_position labeler
done
