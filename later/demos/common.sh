# Sourced by every demonstration. A call runs one seed: SEED=1 bash later/demos/NAME.sh starts from
# out-1/, made by SEED=1 OUT=out-1 bash train_all.sh; without SEED from out/. Results are in
# out/later/NAME/seed-SEED/RUN/. What exists is skipped. TINY=1 only tries the commands, from
# out-tiny/.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "$0")/../.."
source tools/setup.sh
setup requirements.txt

SEED=${SEED:-0} TINY=${TINY:-0}
finished=out
if [ "$TINY" = 1 ]; then finished=out-tiny; fi
ALL=$finished/later                   # results of all demonstrations
OUT=$ALL/$name
if [ "$SEED" != 0 ]; then finished=$finished-$SEED; fi

enter() {   # enter RUN FILE...   the folder of a run, with files of the finished run or at a path
    run=$OUT/seed-$SEED/$1
    printf '\n=== %s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do
        if [[ $file != */* ]]; then file=$finished/$file; fi
        if [ ! -e "$file" ]; then
            echo "error: $file not found; the first lines of $0 say what to run before" >&2
            exit 1
        fi
        if [ ! -e "$run/${file##*/}" ]; then cp "$file" "$run/"; fi
    done
}

once() {    # once RESULT SCRIPT FLAGS...   in that folder, unless it has the result
    if [ -e "$run/$1" ]; then echo "$run/$1 exists"; return; fi
    local command="${*:2} --seed $SEED --out $run"
    if [ "$TINY" = 1 ]; then command="$command $(tiny_flags "${*:2}")"; fi
    echo "python $command"
    "$python" $command
}

tiny_flags() {
    case $1 in
        compare.py*)             echo "--prompts 12 --heldout-prompts 4 --max-new-tokens 8" ;;
        ppo.py* | *verifiers*)   echo "--iterations 2 --episodes 8 --minibatch 4" ;;
        eval.py*)                echo "--prompts 20 --probes 2" ;;
        pretrain.py*)            echo "--documents 500 --steps 5 --batch 8" ;;
        *later.preferences*)     echo "--prompts 12 --max-new-tokens 8" ;;
        *later.online*)          echo "--rounds 2 --batch 8 --max-new-tokens 8" ;;
        *later.grpo* | *later.reasoning*)
            echo "--iterations 2 --prompts 2 --minibatch 8 --max-new-tokens 8" ;;
        *later.chains*)          echo "--pages 50 --steps 5 --demonstrations 40" ;;
        *later.process*)         echo "--sums 40 --completions 2 --test-sums 2 --n 4" ;;
        *later.measure*)         echo "--n 8 --k 2 --max-new-tokens 8" ;;
        *later.judge*)           echo "--pages 600 --documents 50" ;;
        *later.constitution*)
            echo "--prompts 60 --red-team 30 --comparisons 30 --max-new-tokens 16" ;;
    esac
}

as_trained() {   # as_trained NAME...   rows for checkpoints of the finished run
    local checkpoint
    for checkpoint; do
        enter "$checkpoint" sft.pt "$checkpoint.pt"
        once measured.json -m later.measure --models "$checkpoint"
    done
}

table() { "$python" -m later.demos.table "$OUT" "$@"; }
