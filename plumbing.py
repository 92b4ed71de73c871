"""What no paper mentions: flags and errors, seed and device, optimisers, metrics, going on after a
stop."""

import argparse
import dataclasses
import hashlib
import inspect
import json
import math
import os
import re
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# OpenMP's threads spin while they wait for each other; beside one other busy process a training
# step then takes many times as long. It reads these when torch is imported, so plumbing comes
# first. They spin for a thousand turns: nearly as fast when nothing else runs. LLVM's OpenMP (macOS)
# only knows the policy. What the user has set stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from tqdm import tqdm

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
              "run the same command again, with --resume to go on", file=sys.stderr)
        sys.exit(130)
    except torch.OutOfMemoryError:
        fail("the GPU's memory is full; a lower --microbatch or --batch needs less")
    except OSError as e:
        fail(f"{e.filename or 'writing to --out'}: {e.strerror or e}; "
             "check the path and the room on the disk")


@contextmanager
def whole(path, mode="wb", errors=OSError, **how):
    """A file written beside its place and renamed: the old one is whole until the new one is."""
    draft = Path(f"{path}.tmp")
    try:
        with open(draft, mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except errors as e:
        draft.unlink(missing_ok=True)
        fail(f"{path}: could not be written ({e}); make room and run this stage again")


def load_whole(path, device="cpu"):
    """torch.load without code, after a look at the checksums; any exception: it is damaged."""
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
    return torch.load(path, map_location=device, weights_only=True)


@dataclass(frozen=True)
class Training:
    """Flags that every training script has."""
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    compile: bool = False          # torch.compile the network, for long runs on a GPU
    microbatch: int = 0            # sequences at a time, gradients added up; 0: a whole batch
    resume: bool = False           # go on where a run with the same flags was stopped
    save_every: int = 100          # steps from one checkpoint for --resume to the next


def flags(Config, description):
    """Flags from a frozen dataclass; a field's trailing comment is its help. -> a Config"""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0],
                                     allow_abbrev=False)
    source = "".join(inspect.getsource(c) for c in Config.__mro__[:-1])
    comments = dict(re.findall(r"^    (\w+): .*?#\s*(.*)$", source, re.M))
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
        if type(value) is int and field.default > 0 or name.endswith("lr"):
            check(value > 0, f"{name} {value} must be above 0")
        if field.type is float:
            check(math.isfinite(value), f"{name} {value} is not a finite number")
    return config


# --- seed and device ------------------------------------------------------------------------------


blocks = dict(dtype=torch.float32)     # what the blocks compute in; `start` decides it


def start(config):
    """Seeds everything, sets the precision. -> device, a CPU generator for batches"""
    torch.manual_seed(config.seed)
    device, precision = (getattr(config, "device", "cpu"), getattr(config, "precision", "auto"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        fail(f"--device {device} is not there; use auto or cpu")
    check(precision in ("auto", "float32", "bfloat16"),
          f"--precision {precision}: float32, bfloat16 or auto")
    half = precision == "bfloat16" or precision == "auto" and device.startswith("cuda")
    blocks["dtype"] = torch.bfloat16 if half else torch.float32
    torch.set_float32_matmul_precision("high" if half else "highest")    # of the heads
    return torch.device(device), torch.Generator().manual_seed(config.seed)


def autocast(device):
    """Inside, matrix products are in the precision of the blocks; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=blocks["dtype"] != torch.float32)


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
            shapes = {}                            # matrices of one shape are turned together
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for (m, n), params in shapes.items():
                averages = [self.state[p].setdefault("average", torch.zeros_like(p))
                            for p in params]
                grads = [p.grad for p in params]
                torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
                updates = orthogonal(torch.stack(grads).lerp_(torch.stack(averages),
                                                              group["momentum"]))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, updates.unbind(),
                                    alpha=-group["lr"] * max(1, m / n) ** 0.5)


def orthogonal(g, steps=5):
    """U S V^T -> about U V^T, by Newton and Schulz's iteration: the singular values of g come near
    1, between 0.7 and 1.2. (..., m, n) -> (..., m, n)"""
    if g.shape[-2] > g.shape[-1]:
        return orthogonal(g.mT, steps).mT
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = 3.4445 * x + (-4.775 * s + 2.0315 * s @ s) @ x
    return x


def muon_and_adam(model, muon_lr, lr, weight_decay=0.0):
    """Muon for the matrices of the blocks, Adam for embeddings, biases and layer norms."""
    # differs from the paper (Adam for all): learns in half the steps, and fine-tuning forgets less
    matrices, others = [], []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and ".h." in name else others).append(p)
    return Muon(matrices, muon_lr, weight_decay), adam(others, lr)


def prepare(config, *models):
    """Compiles their calls, if asked to; sampling, which calls `hidden`, stays as it is."""
    for model in models if config.compile else ():
        model.compile(dynamic=True)
    return models[0]


def set_lr(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(done):
    """A learning rate's factor when a share `done` of the steps is behind us: 1 to a tenth
    (appendix C.1)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


# --- steps ----------------------------------------------------------------------------------------


class Steps:
    """The steps of a stage: a progress bar, one JSON line each in out/metrics/<stage>.jsonl, and
    now and then all that --resume needs in out/<name>.part, beside <name>.pt.

    state: modules, optimisers and generators by name. On a CPU with the same number of threads a
    run that was stopped and went on ends with the weights of one that was not, bit for bit.
    """

    def __init__(self, config, stage, name=None):
        check(config.microbatch >= 0, f"--microbatch {config.microbatch}: 0 or more")
        out = Path(config.out)
        self.config, self.stage, self.began = config, stage, time.time()
        self.path, self.part = out / "metrics" / f"{stage}.jsonl", out / f"{name or stage}.part"
        self.file = None                        # an earlier log is kept until there is a first line
        self.goes_on = config.resume and self.part.is_file()

    def upto(self, n, data, **state):
        """Yields 0, 1, ... n - 1, or what is left of them. data: all that is learned from."""
        self.origin = origin(n, data, state)
        first = self.load(state) if self.goes_on else 0
        self.bar = tqdm(range(first, n), desc=self.stage, initial=first, total=n)
        for step in self.bar:
            yield step
            if (step + 1) % self.config.save_every == 0 and step + 1 < n:
                self.save(step + 1, state)

    def save(self, step, state):
        kept = {name: x.get_state() if isinstance(x, torch.Generator) else x.state_dict()
                for name, x in state.items()}
        random = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with whole(self.part, errors=(OSError, RuntimeError)) as file:
            torch.save(dict(step=step, state=kept, random=random, flags=lasting(self.config),
                            origin=self.origin, seconds=time.time() - self.began), file)

    def load(self, state):
        """-> the step to go on with"""
        again = f"delete {self.part} to begin again"
        try:
            kept = load_whole(self.part)
            step, given = kept["step"], kept["flags"]
        except Exception:
            fail(f"{self.part} is damaged; {again}")
        for name, value in lasting(self.config).items():
            check(given.get(name) == value,
                  f"{self.part} was begun with --{name.replace('_', '-')} {given.get(name)}, "
                  f"not {value}; give it the same, or {again}")
        check(kept["origin"] == self.origin,
              f"{self.part} was begun from another model or other data; {again}")
        try:
            for name, x in state.items():
                here = kept["state"][name]
                x.set_state(here) if isinstance(x, torch.Generator) else x.load_state_dict(here)
            torch.set_rng_state(kept["random"][0])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(kept["random"][1:])
            lines = self.path.read_text().splitlines()[:step]
        except Exception:
            fail(f"{self.part} or {self.path} is damaged; {again}")
        with whole(self.path, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.file, self.began = open(self.path, "a"), time.time() - kept["seconds"]
        return step

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
        shown = [key for key in ("loss", "accuracy", "score", "kl") if key in values and step >= 0]
        self.bar.set_postfix({key: f"{values[key]:.2f}" for key in shown})

    def end(self, reached, **values):
        """The stage's last line, on the screen and in the file; nothing is left to go on with."""
        seconds = time.time() - self.began
        self.log(-1, seconds=seconds, **values)
        self.part.unlink(missing_ok=True)
        print(f"{reached}, in {seconds:.0f} s")


def lasting(config):
    """The flags that a run has to go on with."""
    passing = ("out", "device", "compile", "microbatch", "resume", "save_every")
    return {name: value for name, value in dataclasses.asdict(config).items()
            if name not in passing}


def origin(n, data, state):
    """A hash of what a run begins with: the number of steps, the data, the models' embeddings."""
    found = hashlib.sha256(f"{n} steps".encode())
    embeddings = [p.detach() for module in state.values() if isinstance(module, torch.nn.Module)
                  for name, p in module.named_parameters() if name.endswith("wte.weight")]
    for x in [*data, *embeddings]:
        found.update(x.cpu().numpy().tobytes() if torch.is_tensor(x) else repr(x).encode())
    return found.hexdigest()
