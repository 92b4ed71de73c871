#!/usr/bin/env bash
# How far may the policy move away from SFT? PPO with eight values of beta.
source "$(dirname "$0")/common.sh"

for beta in 2 0.5 0.2 0.1 0.05 0.02 0.005 0; do run_ppo beta-$beta --beta $beta; done
plot table ppo kl score utility correct correct_greedy
plot dial
