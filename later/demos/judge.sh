#!/usr/bin/env bash
# How often is the judge right, before anything is trained on its verdicts?
#
# Lee et al. (arXiv 2309.00267, table 4 and appendix B): larger labelers agree with people on more
# pairs (62.7, 73.8, 78.0 %) and pick the same position after a swap on fewer (56, 21, 18 %).
source "$(dirname "$0")/../../experiments/common.sh"

if begin judge base.pt comparisons.jsonl; then
    py later.judge
    mv "$run/judge.json" "$run/results.json"
fi
plot rows correct same_position labeler
