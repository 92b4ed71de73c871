#!/usr/bin/env bash
# Constitutional AI: a helpful-only assistant becomes harmless by rules in words. Run judge.sh
# before.
#
# Bai et al. (arXiv 2212.08073): each round of critique and revision makes answers more harmless,
# the first most; RL on a judge's soft labels makes the policy more harmless still, and not evasive.
#
# sl-1 and sl-4 imitate the revisions of one and four rounds. rl-people has labelers' labels on the
# pairs that the judge labels in the others.
source "$(dirname "$0")/../../experiments/common.sh"

judge=${OUT%/*}/judge/seed-$SEED/judge/judge.pt

harm() { measure --task harmless "$@"; }

if begin sft sft.pt; then harm; fi
for rounds in 1 4; do
    begin sl-$rounds sft.pt "$judge" || continue
    py later.constitution --rounds $rounds
    harm --models sl_cai
done
sl=$OUT/seed-$SEED/sl-4
if begin helpful sft.pt "$sl/helpful.pt"; then harm --models helpful; fi
for labels in soft hard people; do
    begin rl-$labels "$judge" "$sl"/{sl_cai.pt,{comparisons,red_team,prompts}.jsonl} || continue
    py later.feedback --constitution --init-from sl_cai --labels $labels
    py ppo.py --init-from sl_cai --prompts "$run/prompts.jsonl" --beta 0.3
    harm --models ppo --reference sl_cai
done
plot rows harmless task correct_red evasive kl
