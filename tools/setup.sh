# Sourced by train_all.sh and tests/run.sh: `setup FILE...` sets $python to a Python that has the
# packages of these requirements files: the current one, or else that of .venv, which it creates.
# PYTHON=python3.12 names another one to start from.

# let OpenMP's threads sleep while they wait: spinning threads slow down when other programs run
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

setup() {
    local file
    python=${PYTHON:-python3}                # with the packages of the recipe, or also of the tests
    if "$python" -c "import numpy, tiktoken, torch, tqdm" 2>/dev/null && [ $# = 1 ]; then return; fi
    if "$python" -c "import numpy, tiktoken, torch, tqdm, pytest, xdist" 2>/dev/null; then return; fi
    if [ ! -d .venv ]; then
        echo "creating .venv with the packages of $* (once; torch is a large download)"
        "$python" -m venv .venv
        echo "export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000" >> .venv/bin/activate
    fi
    python=.venv/bin/python
    for file; do "$python" -m pip install -q -r "$file"; done
}
