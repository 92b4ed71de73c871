#!/usr/bin/env bash
# How brittle is few-shot prompting? The base model with several few-shot prompts, greedily.
source "$(dirname "$0")/common.sh"

if begin prompts base.pt; then py experiments.few_shot; fi
plot rows lowest mean highest utility
