#!/usr/bin/env bash
# Constitutional AI: a helpful-only assistant becomes harmless by rules in words.
#
# Bai et al. (arXiv 2212.08073): each round of critique and revision makes answers more harmless, the
# first most; RL on a judge's soft labels makes them more so than labelers' labels do, without
# becoming evasive.
#
# Look for: harmless against task, and evasive answers to innocent prompts. sl-0 has learned the
# assistant's own answers, sl-4 those of four rounds; rl-people has labelers' labels on the same
# pairs. The judge is the one of later/demos/judge.sh.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt
if [ ! -e "$judge" ]; then echo "error: $judge not found; run later/demos/judge.sh" >&2; exit 1; fi
all=$OUT/seed-$SEED

measure() { py -m later.constitution --stage measure --checkpoint "$@"; }

if begin sft sft.pt; then measure sft; fi
if begin helpful sft.pt "$judge"; then
    py -m later.constitution --stage assist
    py sft.py --begin sft --demonstrations "$run/helpful.jsonl" --epochs 1
    mv "$run/sft.pt" "$run/helpful.pt"
    py -m later.constitution --stage revise
    measure helpful
fi
for rounds in ${ROUNDS:-0 1 4}; do
    # differs from the paper: it goes on from the assistant, not from the pretrained model
    begin "sl-$rounds" "$all/helpful/helpful.pt" "$all/helpful/sl-$rounds.jsonl" || continue
    py sft.py --begin helpful --demonstrations "$run/sl-$rounds.jsonl" --epochs 1
    mv "$run/sft.pt" "$run/sl-$rounds.pt"
    measure "sl-$rounds"
done
last=metrics/label.jsonl              # the same answers of SL-CAI, labelled once by the judge, ...
if begin judged "$all/sl-4/sl-4.pt" "$judge"; then
    py -m later.constitution --stage rank
    py -m later.feedback --stage label --constitution
fi
last=comparisons.jsonl                # ... once by labelers
if begin people "$all/sl-4/sl-4.pt"; then py -m later.constitution --stage rank --people; fi
last=results.json
for labels in ${LABELS:-soft hard clamped people}; do
    source=judged how="--labels $labels"
    if [ $labels = people ]; then source=people how=""; fi
    begin "rl-$labels" "$all/sl-4/sl-4.pt" "$all/$source/comparisons.jsonl" \
        "$all/$source/prompts.jsonl" || continue
    py -m later.feedback --stage fit --begin sl-4 $how
    py ppo.py --begin sl-4 --prompts "$run/prompts.jsonl" --iterations 60 --beta 0.05
    measure ppo --reference sl-4
done
"$python" experiments/plot.py table "$OUT" policy harmless rude agrees invented right_red task right \
    evasive kl
