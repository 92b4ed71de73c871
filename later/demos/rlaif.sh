#!/usr/bin/env bash
# Can AI feedback replace the labelers? The same comparisons, labelled by them and by the judge.
#
# Lee et al. (arXiv 2309.00267): AI labels win against SFT 71 % of the time, people's 73 %; head to
# head 50 %, although the reward model agrees with people on 74.2 instead of 79.3 % of the pairs.
#
# soft fits the reward model to the judge's probabilities, as Lee et al. do, hard to its verdicts.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt
if [ ! -e "$judge" ]; then echo "error: $judge not found; run later/demos/judge.sh" >&2; exit 1; fi

comparisons=$OUT/seed-$SEED/people/comparisons.jsonl
for labels in people soft hard; do
    if [ $labels = people ]; then
        begin people sft.pt || continue
        py compare.py --prompts 2000 --k 4
    else
        begin $labels sft.pt "$judge" "$comparisons" || continue
    fi
    py -m later.feedback --labels $labels
    py ppo.py --iterations 50
    py eval.py --prompts 300 --probes 60
done
"$python" experiments/plot.py table "$OUT" rm accuracy_labels accuracy_utility reads_wrong
"$python" experiments/plot.py table "$OUT" ppo win_utility win_labelers utility correct kl
"$python" -m later.demos.head_to_head "$OUT"
