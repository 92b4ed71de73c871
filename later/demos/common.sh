# Sourced by every demonstration. A call runs one seed; SEED=1 bash later/demos/NAME.sh is another.
# It starts from the finished run of that seed (out, out-1, out-2, ..., or FROM=) and writes to
# out/later/NAME/seed-SEED/RUN/. Finished runs are skipped. TINY=1 is a smoke test, which starts
# from TINY=1 bash train_all.sh.

set -euo pipefail
name=$(basename "$0" .sh)
cd "$(dirname "$0")/../.."
source tools/setup.sh
setup requirements.txt

SEED=${SEED:-0} TINY=${TINY:-0}
if [ "$TINY" = 1 ]; then FROM=${FROM:-out-tiny} ALL=${ALL:-out-tiny/later}; fi
if [ "$SEED" = 0 ]; then FROM=${FROM:-out}; else FROM=${FROM:-out-$SEED}; fi
ALL=${ALL:-out/later}                 # results of all demonstrations
OUT=${OUT:-$ALL/$name}
if [ ! -e "$FROM/comparisons.jsonl" ]; then
    echo "error: no finished run in $FROM; run SEED=$SEED bash train_all.sh first" >&2
    exit 1
fi

last=results.json                     # the file that a finished run has

begin() {   # begin RUN FILE...   copies files of the finished run, or files named with a folder, to
            # the folder of RUN; returns 1 if RUN is finished
    run=$OUT/seed-$SEED/$1
    if [ -e "$run/$last" ]; then echo "skipped: $run/$last exists"; return 1; fi
    printf '\n=== %s: %s\n' "$name" "$1"
    mkdir -p "$run"
    local file
    for file in "${@:2}"; do
        if [[ $file != */* ]]; then file=$FROM/$file; fi
        cp -r "$file" "$run/"
    done
}

tiny() {    # tiny SCRIPT or -m MODULE ...   flags of the smoke test
    case "$*" in
        compare.py*)             echo "--prompts 12 --heldout-prompts 4 --max-new-tokens 8" ;;
        "-m later.preferences"*) echo "--prompts 12 --max-new-tokens 8" ;;
        "-m later.online"*)      echo "--rounds 2 --batch 8 --max-new-tokens 8" ;;
        pretrain.py*)            echo "--documents 500 --steps 5 --batch 8" ;;
        ppo.py*)                 echo "--iterations 2 --episodes 16 --minibatch 8" ;;
        eval.py*)                echo "--prompts 20 --probes 2" ;;
        "-m later.judge"*)       echo "--pages 600 --documents 50 --prompts 20" ;;
        "-m later.constitution"*)
            echo "--prompts 60 --red-team 30 --comparisons 30 --max-new-tokens 16" ;;
        "-m later.harm"*)        echo "--prompts 20" ;;
    esac
}

py() {      # py SCRIPT FLAGS... or py -m MODULE FLAGS...   in the folder of the run
    if [ "$TINY" = 1 ]; then set -- "$@" $(tiny "$@"); fi
    echo "python $* --seed $SEED --out $run"
    "$python" "$@" --seed "$SEED" --out "$run"
}

learn() {   # learn RUN LOSS FLAGS...   later/preferences.py; COMPARISONS= names another file
    local last=$2.pt
    begin "$1" sft.pt "${COMPARISONS:-comparisons.jsonl}" || return 0
    py -m later.preferences --resume --loss "${@:2}"
}

as_trained() {   # as_trained NAME...   measures checkpoints of the finished run
    local checkpoint last
    for checkpoint; do
        last=metrics/$checkpoint.jsonl
        begin "$checkpoint" sft.pt "$checkpoint.pt" || continue
        py -m later.watch --names "$checkpoint"
    done
}

table() { "$python" later/demos/table.py "$OUT" "$@"; }     # table KEY... or table FILE.json

table_of_policies() {
    table utility correct kl length heldout_chosen heldout_rejected heldout_accuracy
}
