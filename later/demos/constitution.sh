#!/usr/bin/env bash
# Constitutional AI: a helpful-only assistant becomes harmless by rules in words.
#
# Bai et al. (arXiv 2212.08073): each round of critique and revision makes answers more harmless,
# the first most; RL on a judge's soft labels makes the policy more harmless still, and not evasive.
#
# sl-own imitates the assistant's own answers, sl-1 and sl-4 the revisions of one and four rounds.
# rl-people has labelers' labels on the pairs that the judge labels in the others.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt
if [ ! -e "$judge" ]; then echo "error: $judge not found; run later/demos/judge.sh" >&2; exit 1; fi
sl=$OUT/seed-$SEED/sl-4

if begin sft sft.pt; then py -m later.harm; fi
for variant in own 1 4; do
    begin "sl-$variant" sft.pt "$judge" || continue
    if [ $variant = own ]; then flags="--rounds 1 --own-answers"; else flags="--rounds $variant"; fi
    py -m later.constitution $flags
    py -m later.harm --checkpoint sl_cai
done
if begin helpful "$sl/helpful.pt"; then py -m later.harm --checkpoint helpful; fi
for labels in soft hard clamped people; do
    begin "rl-$labels" "$judge" "$sl"/{sl_cai.pt,comparisons.jsonl,red_team.jsonl,prompts.jsonl} ||
        continue
    py -m later.feedback --constitution --init-from sl_cai --labels $labels
    py ppo.py --init-from sl_cai --prompts "$run/prompts.jsonl" --iterations 60 --beta 0.05
    py -m later.harm --checkpoint ppo --reference sl_cai
done
"$python" experiments/plot.py table "$OUT" policy harmless rude affirms invents correct_red task \
    correct evasive kl
