#!/usr/bin/env bash
# Can AI feedback replace the labelers? The same comparisons, labelled by them and by the judge. Run
# judge.sh before.
#
# Lee et al. (arXiv 2309.00267): AI labels win against SFT 71 % of the time, people's 73 %; head to
# head 50 %, although the reward model agrees with people on 74.2 instead of 79.3 % of the pairs.
#
# soft fits the reward model to the judge's probabilities, as Lee et al. do, hard to its verdicts.
source "$(dirname "$0")/../../experiments/common.sh"

judge=${OUT%/*}/judge/seed-$SEED/judge/judge.pt
people=$OUT/seed-$SEED/people

for labels in people soft hard; do
    begin $labels sft.pt "$judge" || continue
    if [ $labels = people ]; then
        py compare.py --prompts 2000 --k 4
    else
        cp "$people/comparisons.jsonl" "$run/"
    fi
    py later.feedback --labels $labels
    py ppo.py --beta 0.3
    py eval.py --prompts 300 --probes 60
done
plot table rm accuracy_utility
plot table ppo win_utility win_utility_greedy win_labelers kl
