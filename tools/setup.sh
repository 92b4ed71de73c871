# Sourced by train_all.sh and tests/run.sh: `setup FILE...` sets $python to a Python that has the
# packages of those requirements files: the current one if it has them all, else .venv, made and
# filled on the first run. PYTHON=python3.12 says which one is the current one.

has() {     # has PYTHON FILE...   every line of the files is name==version
    "$1" - "${@:2}" 2>/dev/null <<'END'
import sys
from importlib.metadata import version
for line in "".join(open(file).read() for file in sys.argv[1:]).split():
    name, wanted = line.split("==")
    assert version(name).split("+")[0] == wanted
END
}

demand_new() {    # demand_new PYTHON   ends the script if it is none, or an old one
    if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "error: $1 is no Python 3.11 or newer; name one: PYTHON=python3.12 bash $0" >&2
        exit 1
    fi
}

fill() {    # fill PYTHON FILE   with the packages of the file, or ends the script and says why
    local log
    if log=$("$1" -m pip install -r "$2" 2>&1); then return; fi
    if grep -qiE 'connection|timed out|from versions: none' <<<"$log"; then
        echo "error: pip gets no packages: there is no network, or none for $("$1" -V);" \
             "connect, or set PIP_INDEX_URL to a mirror, and run this again" >&2
    else
        echo "error: pip could not install $2: $(grep -v '^ *$' <<<"$log" | tail -1)" >&2
    fi
    exit 1
}

setup() {
    local current=${PYTHON:-python3} file
    if [ -n "${PYTHON:-}" ]; then demand_new "$current"; fi
    for python in "$current" .venv/bin/python; do
        if has "$python" "$@"; then return; fi
    done
    demand_new "$current"
    echo "setting up .venv with the packages of $* (once; torch is a large download)"
    "$current" -m venv .venv
    for file; do fill "$python" "$file"; done
}
