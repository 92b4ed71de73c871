#!/usr/bin/env bash
# Can AI feedback replace the labelers? The same comparisons, labelled by them and by the judge. Run
# judge.sh before.
#
# Lee et al. (arXiv 2309.00267): AI labels win against SFT 71 % of the time, people's 73 %; head to
# head 50 %, although the reward model agrees with people on 74.2 instead of 79.3 % of the pairs.
#
# soft fits the reward model to the judge's probabilities, as Lee et al. do, hard to its verdicts.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt

enter people sft.pt
once comparisons.jsonl compare.py --prompts 2000 --k 4
comparisons=$run/comparisons.jsonl
for labels in people soft hard; do
    enter $labels sft.pt "$judge" "$comparisons"
    once reward.pt -m later.feedback --resume --labels $labels
    once ppo.pt ppo.py --resume --beta 0.3
    once results.json eval.py --prompts 300 --probes 60
done
table results.json accuracy_utility win_utility win_utility_greedy win_labelers kl
table runs agreement same_position
