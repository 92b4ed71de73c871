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

setup() {
    local current=${PYTHON:-python3} file
    for python in "$current" .venv/bin/python; do
        if has "$python" "$@"; then return; fi
    done
    if ! "$current" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "error: $current is not Python 3.11 or newer; name one: PYTHON=python3.12 bash $0" >&2
        exit 1
    fi
    echo "setting up .venv with the packages of $* (once; torch is a large download)"
    "$current" -m venv .venv
    for file; do "$python" -m pip install -q -r "$file"; done
}
