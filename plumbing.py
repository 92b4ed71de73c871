"""What no paper mentions: errors and flags, seed and device, optimisers, metrics lines."""

import argparse
import dataclasses
import inspect
import json
import math
import re
import sys
import time
from pathlib import Path

import torch

# --- errors and flags -----------------------------------------------------------------------------


def fail(message):
    """What the user can mend: one line, exit status 1, no traceback."""
    sys.exit(f"error: {message}")


def check(condition, message):
    if not condition:
        fail(message)


def run(main):
    """Calls a script's main. An interrupt exits with 130; checkpoints are only replaced whole."""
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved before is whole, "
              "run the same command to start this stage again", file=sys.stderr)
        sys.exit(130)
    except OSError as e:
        fail(f"{e.filename or 'writing to --out'}: {e.strerror or e}; "
             "check the path and the room on the disk")


def flags(Config, description):
    """Flags from a frozen dataclass; a field's trailing comment is its help. -> a Config"""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0],
                                     allow_abbrev=False)
    comments = dict(re.findall(r"^    (\w+): .*?#\s*(.*)$", inspect.getsource(Config), re.M))
    for field in dataclasses.fields(Config):
        names, help = (["--" + field.name.replace("_", "-")],
                       comments.get(field.name, "").replace("%", "%%"))
        if field.type is bool:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction,
                                default=field.default, help=help)
        else:
            parser.add_argument(*names, type=field.type,
                                default=field.default, help=f"{help} [{field.default}]")
    parser.error = lambda message: fail(f"{message}; see --help")
    config = Config(**vars(parser.parse_args()))
    for field in dataclasses.fields(Config):  # counts and learning rates; scripts check the rest
        value, name = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if field.type is int and field.default > 0 or name.endswith("lr"):
            check(value > 0, f"{name} {value} must be above 0")
        if field.type is float:
            check(math.isfinite(value), f"{name} {value} is not a finite number")
    return config


# --- seed and device ------------------------------------------------------------------------------


def start(seed, device):
    """Seeds everything. -> device, a CPU generator for batches"""
    torch.manual_seed(seed)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        fail(f"--device {device} is not there; use auto or cpu")
    return torch.device(device), torch.Generator().manual_seed(seed)


# --- optimisers -----------------------------------------------------------------------------------


def adam(params, lr):
    """Adam with the paper's betas (appendix C)."""
    return torch.optim.Adam(params, lr=lr, betas=(0.9, 0.95), fused=True)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices (Jordan et al. 2024).

    torch.optim.Muon in float32 instead of bfloat16, three times as fast on a CPU.
    """

    def __init__(self, params, lr, weight_decay=0.0, momentum=0.95):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(average, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(g, steps=5):
    """U S V^T -> about U V^T, by Newton and Schulz's iteration: the singular values of g come near
    1, between 0.7 and 1.2. (m, n) -> (m, n)"""
    if g.shape[0] > g.shape[1]:
        return orthogonal(g.T, steps).T
    x = g / (g.norm() + 1e-7)
    for _ in range(steps):
        s = x @ x.T
        x = 3.4445 * x + (-4.775 * s + 2.0315 * s @ s) @ x
    return x


def muon_and_adam(model, muon_lr, lr, weight_decay=0.0):
    """Muon for the matrices of the blocks, Adam for embeddings, biases and layer norms."""
    # differs from the paper (Adam for all): learns in half the steps, and fine-tuning forgets less
    matrices, others = [], []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and ".h." in name else others).append(p)
    return Muon(matrices, muon_lr, weight_decay), adam(others, lr)


def set_lr(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(done):
    """A learning rate's factor when a share `done` of the steps is behind us: 1 to a tenth
    (appendix C.1)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


# --- metrics --------------------------------------------------------------------------------------


class Metrics:
    """One JSON line a step in out/metrics/<stage>.jsonl."""

    def __init__(self, out, stage):
        self.path, self.began = Path(out) / "metrics" / f"{stage}.jsonl", time.time()
        self.file = None                        # an earlier log is kept until there is a first line

    def log(self, step, **values):
        values = {key: value.item() if torch.is_tensor(value) else float(value)
                  for key, value in values.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        check(not bad, f"{bad} is not finite at step {step}; nothing was saved, "
              "try lower learning rates (the flags that end in lr)")
        if not self.file:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "w")
        self.file.write(json.dumps(dict(step=step, **values)) + "\n")
        self.file.flush()

    def end(self, reached, **values):
        """The stage's last line, on the screen and in the file."""
        seconds = time.time() - self.began
        self.log(-1, seconds=seconds, **values)
        print(f"{reached}, in {seconds:.0f} s")
