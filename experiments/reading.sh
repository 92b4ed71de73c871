#!/usr/bin/env bash
# What teaches a reward model to read, that is, to score a true answer above the same answer with a
# wrong fact? Rankings, K, questions, the answer's log-likelihood (likelihood.py); and are pairs as
# good as whole rankings (section 3.5 of the paper)? DPO's implicit reward is the comparison.
source "$(dirname "$0")/common.sh"

keep() {        # keep N   the first N rankings to train on, and all that are held out
    { grep -m "$1" '"split": "train"' "$run/comparisons.jsonl"
      grep '"split": "valid"' "$run/comparisons.jsonl"; } > "$run/first.jsonl"
    mv "$run/first.jsonl" "$run/comparisons.jsonl"
}
fit() {         # fit FLAGS of reward.py...
    py reward.py "$@"
    py eval.py --prompts 200 --probes 1
}

as_trained
for n in 100 1000 4000; do
    begin "rankings-$n" sft.pt comparisons.jsonl || continue
    keep $n
    fit --questions 0
done
for n in 5000 20000; do
    begin "questions-$n" sft.pt comparisons.jsonl || continue
    keep 10                             # next to no rankings
    fit --questions $n
done
for k in 2 9; do
    begin "k-$k" sft.pt || continue
    py compare.py --k $k --prompts 1000
    fit --questions 0
done
if begin whole-3 sft.pt comparisons.jsonl; then
    keep 1000
    fit --questions 0 --epochs 3
fi
if begin pairs-3 sft.pt comparisons.jsonl; then
    keep 1000
    "$python" -m experiments.pairs split < "$run/comparisons.jsonl" > "$run/pairs.jsonl"
    fit --questions 0 --comparisons "$run/pairs.jsonl" --batch 160 --epochs 3
fi
if begin rankings-4000-ppo sft.pt comparisons.jsonl; then
    cp "$OUT/seed-$SEED/rankings-4000/reward.pt" "$run/"
    py ppo.py
    evaluate
fi
if begin likelihood sft.pt comparisons.jsonl; then
    for script in "reward --questions 0" ppo "eval --prompts 200 --probes 60"; do
        py experiments.likelihood $script
    done
fi
plot table rm,dpo_implicit accuracy_labels accuracy_utility reads_wrong reads_same_kind reads_other
plot table sft,ppo utility correct utility_greedy correct_greedy kl
plot points rm accuracy_utility reads_wrong reads_same_kind
