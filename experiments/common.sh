# Sourced by every experiment. One seed a call, SEED=1 bash experiments/NAME.sh is another; it
# starts from the finished run of that seed (out, out-1, out-2, ... or FROM=), and what it finds
# goes to out/experiments/NAME/seed-SEED/RUN/. A run that has its results is skipped.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "$0")/.."
source tools/setup.sh
setup requirements.txt requirements-extra.txt

SEED=${SEED:-0}
if [ "$SEED" = 0 ]; then FROM=${FROM:-out}; else FROM=${FROM:-out-$SEED}; fi
OUT=${OUT:-out/experiments/$name}
if [ ! -e "$FROM/results.json" ]; then
    echo "error: $FROM holds no finished run; SEED=$SEED bash train_all.sh makes one" >&2
    exit 1
fi

last=results.json                     # what a finished run has

begin() {   # begin RUN FILE...   a folder with those files of the finished run; 1 if done before
    run=$OUT/seed-$SEED/$1
    if [ -e "$run/$last" ]; then echo "skipped: $run/$last exists"; return 1; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do cp -r "$FROM/$file" "$run/" || exit 1; done   # set -e is off in an if
}

py() {      # py SCRIPT FLAGS...   in that folder
    echo "python $* --seed $SEED --out $run"
    "$python" "$@" --seed "$SEED" --out "$run"
}

as_trained() {   # the finished run as a row of the table
    begin as-trained results.json answers.jsonl metrics || true
}

as_row() {  # as_row CHECKPOINT COMMAND...   the checkpoint that it makes is shown in PPO's row
    mv "$run/sft.pt" "$run/once.pt"
    "${@:2}"
    mv "$run/$1.pt" "$run/ppo.pt"
    mv "$run/once.pt" "$run/sft.pt"
}

small="--prompts 200 --probes 60"     # of eval.py: enough for a mean over three seeds
