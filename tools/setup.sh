# Sourced by train_all.sh and tests/run.sh: `setup FILE...` sets $python to a Python that has the
# packages of these requirements files: the current one, or else that of .venv, which it creates.
# PYTHON=python3.12 names another one to start from.

# let OpenMP's threads sleep while they wait: spinning threads slow down when other programs run
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

setup() {
    local file modules="numpy, tiktoken, torch, tqdm"
    if [ $# -gt 1 ]; then modules="$modules, pytest, xdist"; fi      # the second file: the tests'
    python=${PYTHON:-python3}
    if ! "$python" -c "import sys; sys.exit(sys.version_info < (3, 10))"; then
        echo "error: $python is not Python 3.10 or newer; PYTHON=python3.12 names another" >&2
        exit 1
    fi
    if "$python" -c "import $modules" 2>/dev/null; then return; fi
    if [ ! -d .venv ]; then
        echo "creating .venv with the packages of $* (once; torch is a large download)"
        "$python" -m venv .venv
        echo "export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000" >> .venv/bin/activate
    fi
    python=.venv/bin/python
    for file; do "$python" -m pip install -q -r "$file"; done
}
