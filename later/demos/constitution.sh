#!/usr/bin/env bash
# Constitutional AI: a helpful-only assistant becomes harmless by rules in words. Run judge.sh
# before.
#
# Bai et al. (arXiv 2212.08073): each round of critique and revision makes answers more harmless,
# the first most; RL on a judge's soft labels makes the policy more harmless still, and not evasive.
#
# sl-1 and sl-4 imitate the revisions of one and four rounds. rl-people has labelers' labels on the
# pairs that the judge labels in the others.

source "$(dirname "$0")/common.sh"
judge=$ALL/judge/seed-$SEED/4x96/judge.pt

measure() { once measured.json -m later.measure --task harmless "$@"; }

enter sft sft.pt
measure
for rounds in 1 4; do
    enter sl-$rounds sft.pt "$judge"
    once prompts.jsonl -m later.constitution --resume --rounds $rounds
    measure --models sl_cai
done
sl=$run
enter helpful sft.pt "$sl/helpful.pt"
measure --models helpful
for labels in soft hard clamped people; do
    enter "rl-$labels" "$judge" "$sl"/{sl_cai.pt,comparisons.jsonl,red_team.jsonl,prompts.jsonl}
    once reward.pt -m later.feedback --resume --constitution --init-from sl_cai --labels $labels
    once ppo.pt ppo.py --resume --init-from sl_cai --prompts "$run/prompts.jsonl" --beta 0.3
    measure --models ppo --reference sl_cai
done
table runs harmless task correct_red evasive kl
