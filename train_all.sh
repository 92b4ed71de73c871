#!/usr/bin/env bash
# The whole recipe, one command per step. Settings that differ from a script's defaults are here.
#
#   bash train_all.sh                       sets up on the first run, then trains everything in out/
#   SEED=1 OUT=out-1 bash train_all.sh      another seed
#   TINY=1 bash train_all.sh                a smoke test of half a minute, in out-tiny/
#
# A step whose output exists is skipped, except evaluation, and an interrupted training step is
# resumed. To repeat a step, delete its output and everything that was made from it.

set -euo pipefail
cd "$(dirname "$0")"
source tools/setup.sh
setup requirements.txt

SEED=${SEED:-0} TINY=${TINY:-0}
pretrain="" sft="" compare="" reward="" ppo="" eval=""  # flags; empty: the defaults
if [ "$TINY" = 1 ]; then
    export OMP_NUM_THREADS=1
    OUT=${OUT:-out-tiny}
    pretrain="--documents 500 --steps 15 --batch 8 --n-layer 2 --n-head 2 --n-embd 32"
    sft="--documents 500 --demonstrations 256 --epochs 1"
    compare="--prompts 40 --heldout-prompts 10"
    reward="--questions 100"
    ppo="--iterations 2 --episodes 16 --minibatch 8 --prompts 40"
    eval="--prompts 20 --probes 2"
    echo "TINY=1 tries the commands; its models are hardly trained and answer with noise"
fi
OUT=${OUT:-out}

step() {        # step OUTPUT EXPECTATION SCRIPT FLAGS...
    local output=$OUT/$1 expectation=$2
    shift 2
    if [ -e "$output" ]; then echo "$output exists"; return; fi
    printf '\npython %s --seed %s --out %s\n' "$*" "$SEED" "$OUT"
    if [ "$TINY" != 1 ]; then echo "expect $expectation"; fi
    "$python" "$@" --seed "$SEED" --out "$OUT"
}

# 0 pretraining: next-token prediction on documents
step base.pt "three to four minutes, held-out loss 0.58 to 0.64" pretrain.py --resume $pretrain
# 1 supervised fine-tuning on demonstrations
step sft.pt "half a minute, held-out loss 0.16 to 0.22" sft.py --resume $sft
# 2a labelers rank K answers per prompt
step comparisons.jsonl "half a minute, agreement 70 to 77 %" compare.py $compare
# 2b the reward model
step reward.pt "a minute, accuracy 0.69 to 0.76" reward.py --resume $reward
# 3 PPO with a KL penalty; PPO-ptx, with pretraining gradients
step ppo.pt "a minute, utility 2.1 to 2.4, correct 0.63 to 0.75" ppo.py --resume $ppo
step ppo_ptx.pt "a minute and a half, utility 2.0 to 2.4, correct 0.6 to 0.75" ppo.py --resume --ptx 1 $ppo
# 2b and 3 in one: DPO
step dpo.pt "a minute, accuracy 0.69 to 0.76, utility 1.9 to 2.2" dpo.py --resume
# 4 evaluation, every time, since any model may be new
"$python" eval.py $eval --seed "$SEED" --out "$OUT"
