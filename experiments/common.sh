# Sourced by every experiment.
#
#   bash experiments/NAME.sh           starts from the finished run in out/
#   SEED=1 bash experiments/NAME.sh    from out-1/, made by SEED=1 OUT=out-1 bash train_all.sh
#   TINY=1 bash experiments/NAME.sh    only tries the commands; from out-tiny/
#
# Each run has a folder, out/experiments/NAME/seed-SEED/RUN/. It is skipped if it has its results.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt

SEED=${SEED:-0} TINY=${TINY:-0}
finished=out
if [ "$TINY" = 1 ]; then finished=${TINY_OUT:-out-tiny}; fi
OUT=$finished/experiments/$name
if [ "$TINY" = 1 ]; then export OMP_NUM_THREADS=1 PICTURES=$OUT; fi
if [ "$SEED" != 0 ]; then finished=$finished-$SEED; fi
if [ ! -e "$finished/results.json" ]; then
    echo "error: there is no finished run in $finished; run train_all.sh first" >&2
    exit 1
fi

result=results.json                   # the file that a finished run has
small="--prompts 200 --probes 60"     # flags of eval.py, enough for a mean over three seeds

begin() {   # begin RUN FILE...   makes the folder $run with files of the finished run; fails if it
            # has its results already
    run=$OUT/seed-$SEED/$1
    if [ -e "$run/$result" ]; then echo "$run/$result exists"; return 1; fi
    printf '\n%s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do cp -r "$finished/$file" "$run/" || exit 1; done
}

py() {      # py SCRIPT FLAGS..., or py experiments.NAME FLAGS...   runs it in that folder
    local script=$1
    if [[ $script == experiments.* ]]; then script="-m $script"; fi
    set -- $script --seed "$SEED" --out "$run" "${@:2}" $(tiny_flags "$1")
    echo "python $*"
    "$python" "$@"
}

tiny_flags() {
    if [ "$TINY" != 1 ]; then return; fi
    case $1 in
        pretrain.py) echo "--documents 500 --steps 5 --batch 4" ;;
        sft.py) echo "--documents 500 --demonstrations 64" ;;
        compare.py | *.collect) echo "--prompts 30 --heldout-prompts 10" ;;
        ppo.py | *.other_reward | *.likelihood)
            echo "--iterations 5 --episodes 8 --minibatch 4" ;;
        *.closed_form)
            echo "--prompts 4 --iterations 10 --episodes 8 --minibatch 4 --dpo-steps 5" ;;
        *.best_of) echo "--prompts 5 --n 4" ;;
        eval.py) echo "--prompts 10 --probes 2" ;;
    esac
}

as_trained() {      # the finished run as a row of the table
    begin as-trained results.json answers.jsonl metrics || true
}

table() { "$python" -m experiments.plot table "$OUT" "$@"; }
points() { "$python" -m experiments.plot points "$OUT" "$@"; }
figure() { "$python" -m experiments.figures "$1" "$OUT"; }
