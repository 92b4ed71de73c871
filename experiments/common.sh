# Sourced by the scripts here and in later/demos/; README.md shows how to run one. Each run has a
# folder, out/experiments/NAME/seed-SEED/RUN/. It is skipped if it has its results.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
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

begin() {   # begin RUN FILE...   makes the folder $run with files of the finished run, or at a path;
            # fails if it has its results already
    run=$OUT/seed-$SEED/$1
    if [ -e "$run/results.json" ]; then echo "$run/results.json exists"; return 1; fi
    printf '\n%s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do
        if [[ $file != */* ]]; then file=$finished/$file; fi
        if [ ! -e "$file" ]; then
            echo "error: $file not found; the first lines of $0 say what to run before" >&2
            exit 1
        fi
        cp -r "$file" "$run/"
    done
}

py() {      # py SCRIPT FLAGS..., or py MODULE FLAGS...   runs it in that folder
    local script=$1
    if [[ $script != *.py ]]; then script="-m $script"; fi
    set -- $script "${@:2}" $(tiny_flags "$@") --seed "$SEED" --out "$run"
    echo "python $*"
    "$python" "$@"
}

tiny_flags() {
    if [ "$TINY" != 1 ]; then return; fi
    case $1 in
        pretrain.py) echo "--documents 500 --steps 5 --batch 4" ;;
        sft.py) echo "--documents 500 --demonstrations 64" ;;
        compare.py | *.collect) echo "--prompts 30 --heldout-prompts 10" ;;
        reward.py) echo "--questions 100" ;;
        ppo.py | *.other_reward | *.verifiers) echo "--iterations 5 --episodes 8 --minibatch 4" ;;
        *.likelihood) tiny_flags "$2.py" ;;
        *.closed_form) echo "--prompts 4 --iterations 10 --episodes 8 --dpo-steps 5" ;;
        *.best_of) echo "--prompts 5 --n 4" ;;
        *.few_shot) echo "--prompts 10 --draws 2" ;;
        eval.py | *.temperature) echo "--prompts 10 --probes 2" ;;
        *.preferences) echo "--prompts 12" ;;
        *.online) echo "--rounds 2 --batch 8" ;;
        *.grpo | *.reasoning) echo "--iterations 2 --prompts 2 --minibatch 8" ;;
        *.chains) echo "--pages 50 --steps 5 --demonstrations 40" ;;
        *.process) echo "--sums 40 --completions 2 --test-sums 2 --n 4" ;;
        *.measure) echo "--n 8 --k 2" ;;
        *.judge) echo "--pages 600 --documents 50" ;;
        *.constitution) echo "--prompts 60 --red-team 30 --comparisons 30" ;;
    esac
}

evaluate() { py eval.py --prompts 200 --probes 60; }     # enough for a mean over three seeds

measure() {         # measure FLAGS...   the same for models of later/
    py later.measure "$@"
    mv "$run/measured.json" "$run/results.json"
}

run_ppo() {         # run_ppo RUN FLAGS...   PPO with the finished run's reward model
    begin "$1" sft.pt reward.pt comparisons.jsonl || return 0
    py ppo.py "${@:2}"
    evaluate
}

# the finished run as a row of the table
as_trained() { begin as-trained results.json answers.jsonl metrics || true; }

# plot COMMAND ...   a command of plot.py
plot() { "$python" -m experiments.plot "$1" "$OUT" "${@:2}"; }
