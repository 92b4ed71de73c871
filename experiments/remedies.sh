#!/usr/bin/env bash
# Remedies for over-optimisation: three reward models instead of one, or stopping early.
#
# Coste et al. (arXiv 2310.02743) and Eisenstein et al. (arXiv 2312.09244) let several reward models
# judge: the mean, the worst, the mean minus the variance. Here three see the same rankings in
# another order, on the leash on which one of them was over-optimised (dial.sh).
#
# Look for: best of 64 by each, which needs no training; then PPO's true utility at the end, and
# along the way: early stopping is the first point of one reward model's line past a KL of 1.

source "$(dirname "$0")/common.sh"

loose="--beta 0.02"
if begin models sft.pt comparisons.jsonl; then
    for member in 1 2 3; do
        cp "$FROM/sft.pt" "$run/sft.pt"
        "$python" reward.py --no-likelihood --seed "$SEED$member" --out "$run" \
            --comparisons "$run/comparisons.jsonl"
        mv "$run/reward.pt" "$run/reward-$member.pt"
    done
    touch "$run/results.json"
fi
models=$OUT/seed-$SEED/models
for how in one mean worst variance; do
    last=best_of.json
    begin "best-of-$how" sft.pt || continue
    cp "$models"/reward-?.pt "$run/"
    cp "$run/reward-1.pt" "$run/reward.pt"
    py experiments/exact.py --measure best_of --how $how
done
last=results.json
for how in one mean worst variance; do
    begin "$how" sft.pt || continue
    cp "$models"/reward-?.pt "$run/"
    cp "$run/reward-1.pt" "$run/reward.pt"
    py experiments/ensemble.py --how $how $loose
    py eval.py $small
done
"$python" experiments/figures.py remedies "$OUT"
