"""The steps of a stage: a progress bar, a log, and going on after a stop."""

import dataclasses
import hashlib
import json
import math
import os
import time
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch
from tqdm import tqdm

from tools.checkpoints import read_whole, save
from tools.flags import check, fail, flag, lock, write_whole

SAVE_EVERY = 20.0          # seconds from one save for --resume to the next


class Steps:
    """The steps of a stage: a progress bar, one JSON line each in out/metrics/<stage>.jsonl, now
    and then all that --resume needs in out/<name>.part, and in the end out/<name>.pt.

    state: modules, optimisers and generators by name. On a CPU with the same number of threads a
    run that was stopped and went on ends with the weights of one that was not, bit for bit.
    """

    def __init__(self, config, stage, name=None):
        out, name = Path(config.out), name or stage
        self.config, self.stage, self.began = config, stage, time.time()
        self.path, self.part = out / "metrics" / f"{stage}.jsonl", out / f"{name}.part"
        self.checkpoint = out / f"{name}.pt"
        self.file = None                        # an earlier log is kept until there is a first line
        lock(config.out, name)

    def upto(self, n, data, **state):
        """Yields 0, 1, ... n - 1, or what is left of them. data: all that is learned from."""
        self.origin = hash_origin(n, data, state)
        first = self.load(state) if self.config.resume and self.part.is_file() else 0
        self.bar = tqdm(range(first, n), desc=self.stage, initial=first, total=n)
        saved = time.time()
        for step in self.bar:
            yield step
            if time.time() - saved >= SAVE_EVERY and step + 1 < n:
                self.save(step + 1, state)
                saved = time.time()

    def save(self, step, state):
        kept = {name: x.get_state() if isinstance(x, torch.Generator) else x.state_dict()
                for name, x in state.items()}
        random = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        if self.file:                           # the log is on the disk before what goes on from it
            os.fsync(self.file.fileno())
        with write_whole(self.part, "wb", errors=(OSError, RuntimeError)) as file:
            torch.save(dict(step=step, state=kept, random=random, flags=lasting(self.config),
                            origin=self.origin, seconds=time.time() - self.began), file)

    def load(self, state):
        """-> the step to go on with"""
        again = f"delete {self.part} to begin again"
        try:
            kept = read_whole(self.part)
            step, given = kept["step"], kept["flags"]
            began, origin = time.time() - kept["seconds"], kept["origin"]
            assert step > 0 and type(given) is dict
        except Exception:
            fail(f"{self.part} is damaged; {again}")
        for name, value in lasting(self.config).items():
            check(given.get(name) == value, f"{self.part} was begun with {flag(name)} "
                  f"{given.get(name)}, not {value}; give it the same, or {again}")
        check(origin == self.origin,
              f"{self.part} was begun from another model or other data; {again}")
        try:
            for name, x in state.items():
                here = kept["state"][name]
                x.set_state(here) if isinstance(x, torch.Generator) else x.load_state_dict(here)
            torch.set_rng_state(kept["random"][0])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(kept["random"][1:])
            lines = self.path.read_text(encoding="utf-8").splitlines()[:step]
            assert len(lines) == step
            assert [json.loads(line)["step"] for line in lines] == list(range(step))
        except Exception:
            fail(f"{self.part} or {self.path} is damaged; {again}")
        with write_whole(self.path) as file:
            file.writelines(f"{line}\n" for line in lines)
        self.file, self.began = open(self.path, "a", encoding="utf-8"), began
        return step

    def log(self, step, **values):
        values = {key: value.item() if torch.is_tensor(value) else float(value)
                  for key, value in values.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        check(not bad, f"{bad} is not finite at step {step}; nothing was saved, "
              "try lower learning rates (the flags that end in lr)")
        if not self.file:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "w", encoding="utf-8")
        self.file.write(json.dumps(dict(step=step, **values)) + "\n")
        self.file.flush()
        shown = [key for key in ("loss", "accuracy", "score", "kl") if key in values and step >= 0]
        self.bar.set_postfix({key: f"{values[key]:.2f}" for key in shown})

    def say(self, text):
        """A line above the progress bar."""
        self.bar.write(text)

    def end(self, model, config, tokenizer, reached, **values):
        """The closing line of the log, the checkpoint, and what was reached on the screen. Whoever
        is stopped in between finds the stage undone."""
        seconds = time.time() - self.began
        self.log(-1, seconds=seconds, **values)
        save(self.checkpoint, model, config, tokenizer)
        self.part.unlink(missing_ok=True)
        print(f"{self.checkpoint}: {reached}, in {seconds:.0f} s")


def lasting(config):
    """The flags that a run has to go on with."""
    passing = ("out", "device", "resume")
    return {name: value for name, value in dataclasses.asdict(config).items()
            if name not in passing}


def hash_origin(n, data, state):
    """What a run begins with: the number of steps, the data, the models' embeddings."""
    found = hashlib.sha256(f"{n} steps".encode())
    embeddings = [p.detach() for module in state.values() if isinstance(module, torch.nn.Module)
                  for name, p in module.named_parameters() if name.endswith("wte.weight")]
    for x in [*data, *embeddings]:
        found.update(x.cpu().numpy().tobytes() if torch.is_tensor(x) else repr(x).encode())
    return found.hexdigest()


def mean_of(stats):
    """A list of {name: tensor ()} with the same names -> {name: mean}"""
    return {key: torch.stack([s[key] for s in stats]).mean() for key in stats[0]}
