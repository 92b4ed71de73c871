# Sourced by every demonstration. One seed a call, SEED=1 bash later/demos/NAME.sh is another; it
# starts from the finished run of that seed (out, out-1, out-2, ... or FROM=), and what it finds
# goes to out/later/NAME/seed-SEED/RUN/. A run that has its results is skipped. TINY=1 asks only
# whether it runs, from TINY=1 bash train_all.sh.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "$0")/../.."
source tools/setup.sh
setup requirements.txt

SEED=${SEED:-0}
if [ "${TINY:-0}" = 1 ]; then FROM=${FROM:-out-tiny}; ALL=${ALL:-out-tiny/later}; fi
if [ "$SEED" = 0 ]; then FROM=${FROM:-out}; else FROM=${FROM:-out-$SEED}; fi
ALL=${ALL:-out/later}                 # of all demonstrations: one may go on from another's runs
OUT=${OUT:-$ALL/$name}
if [ ! -e "$FROM/comparisons.jsonl" ]; then
    echo "error: $FROM holds no finished run; SEED=$SEED bash train_all.sh makes one" >&2
    exit 1
fi

last=results.json                     # what a finished run has

begin() {   # begin RUN FILE...   a folder with those files of the finished run, or of any folder if
            # named with one; 1 if done before
    run=$OUT/seed-$SEED/$1
    if [ -e "$run/$last" ]; then echo "skipped: $run/$last exists"; return 1; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do
        if [[ $file == */* ]]; then cp -r "$file" "$run/"; else cp -r "$FROM/$file" "$run/"; fi
    done
}

tiny() {    # tiny SCRIPT or -m MODULE ...   flags of a run too small to learn, with TINY=1
    if [ "${TINY:-0}" != 1 ]; then return; fi
    case "$*" in
        compare.py*)             echo "--prompts 12 --heldout-prompts 4 --max-new-tokens 8" ;;
        "-m later.preferences"*) echo "--prompts 12 --max-new-tokens 8" ;;
        "-m later.online"*)      echo "--rounds 2 --asked 8 --max-new-tokens 8" ;;
    esac
}

py() {      # py SCRIPT FLAGS... or py -m MODULE FLAGS...   in that folder
    set -- "$@" $(tiny "$@")
    echo "python $* --seed $SEED --out $run"
    "$python" "$@" --seed "$SEED" --out "$run"
}

learn() {   # learn RUN LOSS FLAGS...   later/preferences.py from SFT; RANKINGS: others than its own
    local last=$2.pt
    begin "$1" sft.pt "${RANKINGS:-comparisons.jsonl}" || return 0
    py -m later.preferences --resume --loss "${@:2}"
}

as_trained() {   # as_trained NAME...   finished checkpoints, measured the same way, a row each
    local checkpoint last
    for checkpoint; do
        last=metrics/$checkpoint.jsonl
        begin "$checkpoint" sft.pt "$checkpoint.pt" || continue
        py -m later.watch --names "$checkpoint"
    done
}

table() { "$python" later/demos/table.py "$OUT" "$@"; }
