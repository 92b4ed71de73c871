"""What no paper mentions. Imported before torch, since OpenMP reads the environment just once.

OpenMP's threads spin while they wait for each other; beside one other busy process a training step
then takes many times as long. Here they spin for a thousand turns, which is nearly as fast when
nothing else runs. LLVM's OpenMP (macOS) knows the policy alone. What the user has set stays.
"""

import os
import sys
from importlib.util import find_spec

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

missing = [name for name in ("numpy", "tiktoken", "torch", "tqdm") if find_spec(name) is None]
if missing:
    sys.exit(f"error: {sys.executable} has no {', '.join(missing)}; `bash train_all.sh` sets up a "
             ".venv (then `source .venv/bin/activate`), or pip install -r requirements.txt")


def excepthook(kind, error, trace, usual=sys.excepthook):
    """An interrupt while torch is imported, before `run` is there to catch it: no traceback."""
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr, flush=True)
        os._exit(130)
    usual(kind, error, trace)


sys.excepthook = excepthook
