#!/usr/bin/env bash
# What do the curves of a healthy PPO run look like, and those of runs in which one flag is wrong?
# docs/curves.md explains them.
source "$(dirname "$0")/common.sh"

run_ppo healthy
run_ppo learning-rate-too-high --lr 1e-2
run_ppo hardly-learns --lr 2e-6
run_ppo no-penalty --beta 0 --lr 1e-3
run_ppo value-function-fails --value-lr 0.3
run_ppo reward-over-optimised --beta 0.005
plot curves
