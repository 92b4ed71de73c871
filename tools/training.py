"""What a training loop needs besides training: a log, a progress bar, and saving to resume from."""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tools.checkpoints import check_finite, save_checkpoint
from tools.flags import atomic_write, check, fail


def is_finished(config, name):
    """Whether --resume finds nothing left to do."""
    path = Path(config.out) / f"{name}.pt"
    finished = config.resume and path.is_file() and not path.with_suffix(".resume").is_file()
    if finished:
        print(f"{path} is finished; leave out --resume to train it again")
    return finished


class Run:
    """The log, the progress bar and the saved state of one training run.

        run = Run(config, "sft", n_steps, model=model, adam=adam)    # what --resume restores
        for step in range(run.first_step, n_steps):
            ...
            run.log(step, loss=loss)                                 # out/metrics/sft.jsonl
            if step % 100 == 99:
                run.save(step)                                       # out/sft.resume
        run.finish(model, tokenizer, heldout_loss=heldout_loss)      # out/sft.pt
    """

    def __init__(self, config, name, n_steps, **state):
        self.state, self.n_steps, self.start_time = state, n_steps, time.time()
        self.checkpoint_path = Path(config.out) / f"{name}.pt"
        self.resume_path = Path(config.out) / f"{name}.resume"
        self.flags = dataclasses.asdict(config)
        for may_differ in ("out", "device", "resume"):
            del self.flags[may_differ]

        log_path = Path(config.out) / "metrics" / f"{name}.jsonl"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.first_step, lines = 0, []
        if is_finished(config, name):
            sys.exit()
        # an earlier run's log stays until this one has finished
        self.log_path, self.part_path = log_path, Path(f"{log_path}.part")
        if config.resume and self.resume_path.is_file():
            self.first_step = self.load()
            if self.part_path.is_file():     # a line per step, without those after the saved one
                lines = self.part_path.read_text().splitlines(True)[:self.first_step]
        self.log_file = open(self.part_path, "w", buffering=1)     # line by line
        self.log_file.writelines(lines)
        self.progress = tqdm(total=n_steps, initial=self.first_step, desc=name)

    def save(self, step):
        """Everything that the next step depends on; nothing after the last step."""
        if step + 1 == self.n_steps:
            return
        for x in self.state.values():
            if isinstance(x, torch.nn.Module):
                check_finite(x, self.resume_path)
        state = {name: x.state_dict() for name, x in self.state.items()}
        with atomic_write(self.resume_path, "wb") as file:
            torch.save(dict(step=step, state=state, flags=self.flags, rng=torch.get_rng_state(),
                            cuda_rng=torch.cuda.get_rng_state_all(),
                            seconds=time.time() - self.start_time), file)

    def load(self):
        """-> the step to continue with"""
        try:
            saved = torch.load(self.resume_path, weights_only=True)
            same_flags = saved["flags"] == self.flags
            for name, model_or_optimizer in self.state.items():
                if same_flags:
                    model_or_optimizer.load_state_dict(saved["state"][name])
        except Exception:                                          # whatever torch.load raises
            fail(f"{self.resume_path} is damaged or from another model; delete it to start again")
        check(same_flags, f"{self.resume_path} is from a run with other flags; use the same flags, "
              "or delete it to start again")
        torch.set_rng_state(saved["rng"])
        torch.cuda.set_rng_state_all(saved["cuda_rng"])
        self.start_time -= saved["seconds"]
        return saved["step"] + 1

    def log(self, step, **values):
        """A line of the log. Values are numbers or tensors (); one that is not finite ends the
        program."""
        for name, value in values.items():
            values[name] = value.item() if torch.is_tensor(value) else value
            if not math.isfinite(values[name]):
                self.progress.close()
                fail(f"{name} is {values[name]} at step {step}; try a lower --lr")
        self.log_file.write(json.dumps(dict(step=step, **values)) + "\n")
        shown = {name: f"{values[name]:.2f}" for name in ("loss", "score", "kl") if name in values}
        self.progress.set_postfix(shown, refresh=False)
        if step >= 0:                                              # not the last line
            self.progress.update()
        return values

    def finish(self, model, tokenizer, **values):
        """The last line of the log, which has step -1 and what was reached, and the checkpoint."""
        seconds = time.time() - self.start_time
        values = self.log(-1, **values, seconds=seconds)
        self.progress.close()
        self.log_file.close()
        save_checkpoint(self.checkpoint_path, model, model.config, tokenizer)
        os.replace(self.part_path, self.log_path)
        self.resume_path.unlink(missing_ok=True)
        reached = [f"{name} {value:.3f}" for name, value in values.items() if name != "seconds"]
        print(f"{self.checkpoint_path}: {', '.join(reached)}, in {seconds:.0f} s")
