#!/usr/bin/env bash
# RLAIF on a par? The recipe twice, with the labelers' rankings and with the judge's of the same
# answers.
#
# Lee et al. (arXiv 2309.00267): wins against SFT 71 % with AI labels, 73 % with people's, head to
# head 50 %, although the reward model is worse (74.2 against 79.3 % of people's labels).
#
# Look for: agreement of the labels, the reward model, wins by true utility, milliseconds a label; and
# the KL: a judge contradicts itself less than labelers do each other, so scores that are fitted to
# its rankings spread further and pull harder. ai-soft fits them to its probabilities. The judge is
# the one of later/demos/judge.sh.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt
if [ ! -e "$judge" ]; then echo "error: $judge not found; run later/demos/judge.sh" >&2; exit 1; fi
all=$OUT/seed-$SEED

follow() {  # follow SCRIPT FLAGS...   that fits the reward model
    py "$@"
    py ppo.py --iterations 50
    py eval.py --prompts 300 --probes 60
}

if begin people sft.pt; then
    py compare.py --prompts 2000 --k 4
    follow reward.py
fi
if begin ai sft.pt "$judge" "$all/people/comparisons.jsonl"; then
    py -m later.feedback --stage label
    follow reward.py
fi
if begin ai-soft sft.pt "$all/ai/comparisons.jsonl"; then         # as Lee et al. do
    cp -r "$all/ai/metrics" "$run/"
    follow -m later.feedback --stage fit --labels soft
fi
"$python" experiments/plot.py table "$OUT" rm accuracy_labels accuracy_heldout_labelers accuracy_gold
"$python" experiments/plot.py table "$OUT" ppo win_gold win_labelers gold right kl
"$python" later/demos/head_to_head.py "$OUT"
