#!/usr/bin/env bash
# The whole recipe, one command a stage, and at the end the table. Settings that differ from the
# defaults of a stage stand here.
#
#   bash train_all.sh                           sets up on the first run, then trains all into out/
#   SEED=1 bash train_all.sh                    another seed, into out-1/; OUT= names another folder
#   TINY=1 bash train_all.sh                    does it run? half a minute, too small to learn
#
# A stage whose checkpoint exists is skipped; a training stage that was stopped goes on there.

set -euo pipefail
cd "$(dirname "$0")"
source tools/setup.sh
setup requirements.txt

SEED=${SEED:-0}
TINY=${TINY:-0}
case ${OUT:-} in ""|/*) ;; *) [ "$OLDPWD" -ef . ] || OUT=$OLDPWD/$OUT;; esac  # from where you stand
if [ "$TINY" = 1 ]; then OUT=${OUT:-out-tiny}; fi
if [ "$SEED" != 0 ]; then OUT=${OUT:-out-$SEED}; fi
OUT=${OUT:-out}

stage() {   # stage CHECKPOINT TITLE EXPECTATION COMMAND...   (no checkpoint is called "always")
    local checkpoint=$1 title=$2 expectation=$3
    shift 3
    printf '\n=== %s\n' "$title"
    if [ -e "$OUT/$checkpoint" ] && [ ! -e "$OUT/${checkpoint%.pt}.part" ]; then
        echo "skipped: $OUT/$checkpoint exists"
        echo "to start again delete it and what was made from it, or use another OUT="
        return
    fi
    if [ "$TINY" != 1 ]; then echo "expect $expectation"; fi
    echo "python $* --seed $SEED --out $OUT"
    "$python" "$@" --seed "$SEED" --out "$OUT"
}

pretrain="" sft="" compare="" reward="" ppo="" ptx="" dpo="" eval=""   # flags; none: the defaults
if [ "$TINY" = 1 ]; then
    export OMP_NUM_THREADS=1          # on so little work threads only wait for each other
    pretrain="--documents 500 --steps 15 --batch 8 --n-layer 2 --n-head 2 --n-embd 32"
    sft="--documents 500 --demonstrations 256 --epochs 1"
    compare="--prompts 40 --heldout-prompts 10"
    ppo="--iterations 2 --episodes 16 --minibatch 8 --prompts 40"
    ptx="$ppo"
    eval="--prompts 20 --probes 2"
fi

stage base.pt "0 pretrain: next-token prediction on documents" \
    "four to five minutes and: base.pt: held-out loss 0.56 to 0.65" \
    sft.py --resume --stage pretrain $pretrain

stage sft.pt "1 imitate: supervised fine-tuning on demonstrations" \
    "a minute and: sft.pt: held-out loss 0.22 to 0.29" \
    sft.py --resume $sft

stage comparisons.jsonl "2a ask people: K answers per prompt, ranked by labelers" \
    "half a minute and: comparisons.jsonl: 4,300 rankings by 20 labelers, who agree on 71 to 77%" \
    compare.py $compare

stage reward.pt "2b fit a scalar: the reward model" \
    "half a minute and: reward.pt: right on 74 to 79% of held-out labels" \
    reward.py --resume $reward

stage ppo.pt "3 chase it on a leash: PPO on the score under a KL penalty" \
    "a minute and: ppo.pt: true utility 2.3 to 2.6, right 70 to 82%; KL 0.5 to 1.8" \
    ppo.py --resume $ppo

stage ppo_ptx.pt "3 the same with pretraining gradients: PPO-ptx" \
    "a minute and a half and: ppo_ptx.pt: true utility 2.2 to 2.6, right 68 to 80%; KL 0.5 to 1.6" \
    ppo.py --resume --ptx 1 $ptx

stage dpo.pt "2b and 3 in one: DPO, eq. 1 with the policy in the place of the reward" \
    "half a minute and: dpo.pt: held-out accuracy 71 to 76%, true utility 2.1 to 2.5, right 65 to 77%" \
    dpo.py --resume $dpo

stage always "4 evaluate: what the models do, by a true utility that training sees only through labelers" \
    "a minute and: the table, five prompts answered by every model, results.json, report.html" \
    eval.py $eval
