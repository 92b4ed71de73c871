"""A stage that is killed goes on with --resume and ends as one that was not, bit for bit. Each kill
is a SIGKILL that a forked child sends itself at a chosen moment."""

import json
import os
import resource
import shutil
import signal

import pytest
import torch

import dpo
import plumbing
import ppo
import reward
import sft
from conftest import SHORT, call
from data import comparisons

STAGES = {
    "pretrain": (sft, "base", "--stage pretrain --documents 300 --steps 7 --pretrain-batch 4 "
                              "--vocab-size 600 --n-layer 1 --n-head 2 --n-embd 32 --dropout 0.1"),
    "sft": (sft, "sft", "--documents 50 --demonstrations 96 --batch 16 --epochs 1 --mix 0.5"),
    "reward": (reward, "reward", f"--prompts 30 --heldout-prompts 4 --batch 4 {SHORT}"),
    "ppo": (ppo, "ppo", "--iterations 6 --episodes 8 --minibatch 4 --prompts 40 --eval-prompts 4 "
                        f"{SHORT}"),
    "ppo_ptx": (ppo, "ppo_ptx", "--ptx 1 --iterations 5 --episodes 8 --minibatch 8 --prompts 40 "
                                f"--eval-prompts 4 --documents 60 {SHORT}"),
    "dpo": (dpo, "dpo", f"--epochs 2 --batch 16 --eval-prompts 4 {SHORT}")}


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(function, moment):
    """The function, but at the call for which `moment` is true the process is killed."""
    def wrapped(*args, **kwargs):
        if moment(*args, **kwargs):
            die()
        return function(*args, **kwargs)
    return wrapped


def at_step(k):
    def kill():
        plumbing.Steps.log = dies_at(plumbing.Steps.log, lambda self, step, **_: step == k)
    return kill


def before_the_rename():
    seen = []
    plumbing.os.replace = dies_at(
        os.replace, lambda a, b: str(b).endswith(".part") and (seen.append(b), len(seen) == 2)[1])


def between_the_model_and_the_end():
    plumbing.Steps.end = die


def among_the_comparisons():
    count = iter(range(100))
    comparisons.write_line = dies_at(comparisons.write_line, lambda *_: next(count) == 9)


MOMENTS = {
    "pretrain": [at_step(3), between_the_model_and_the_end],
    "sft": [at_step(1), at_step(3)],
    "reward": [among_the_comparisons, at_step(1), at_step(3), before_the_rename],
    "ppo": [at_step(1), at_step(3), before_the_rename, between_the_model_and_the_end],
    "ppo_ptx": [at_step(3), before_the_rename],
    "dpo": [at_step(3), between_the_model_and_the_end]}


def killed(module, out, flags, prepare):
    """Runs the stage in a child that dies at the moment that `prepare` sets."""
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1), os.dup2(nothing.fileno(), 2)
        prepare()
        call(module, out, flags)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture(autouse=True)
def no_few_shot_page(monkeypatch):
    """It takes most of the time and trains nothing."""
    monkeypatch.setattr(sft, "few_shot_exact", lambda *_: 0.0)


def result(out, stage, name):
    """Weights, and the lines of the log without seconds."""
    lines = [json.loads(line) for line in (out / f"metrics/{stage}.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return torch.load(out / f"{name}.pt", weights_only=True)["weights"], lines


def same(a, b):
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(
        torch.equal(a[0][key], b[0][key]) for key in a[0])


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_the_same_bit_for_bit(copy, tmp_path, stage):
    module, name, flags = STAGES[stage]
    call(module, copy, flags)
    whole = result(copy, stage, name)
    for moment in MOMENTS[stage]:
        other = shutil.copytree(copy, tmp_path / "other")
        for path in (other / f"{name}.pt", other / f"metrics/{stage}.jsonl"):
            path.unlink()
        if stage == "reward":
            (other / "comparisons.jsonl").unlink()
        killed(module, other, f"{flags} --save-every 2", moment)
        call(module, other, f"{flags} --save-every 2 --resume")
        assert same(whole, result(other, stage, name)), f"{moment}"
        assert not list(other.glob("*.part")) and not list(other.glob("*.tmp*"))[1:]
        shutil.rmtree(other)


def test_a_stage_killed_three_times_ends_the_same(copy, tmp_path):
    module, name, flags = STAGES["ppo"]
    call(module, copy, flags)
    whole = result(copy, "ppo", name)
    for k in (2, 3, 5):
        killed(module, copy, f"{flags} --save-every 1 --resume", at_step(k))
    call(module, copy, f"{flags} --save-every 1 --resume")
    assert same(whole, result(copy, "ppo", name))


def stopped(copy, flags):
    killed(sft, copy, f"{flags} --save-every 2", at_step(3))
    assert (copy / "sft.part").is_file()


def refused(copy, flags, *names):
    with pytest.raises(SystemExit) as stop:
        call(sft, copy, f"{flags} --save-every 2 --resume")
    assert all(name in stop.value.code for name in names) and "\n" not in stop.value.code


def test_going_on_with_other_flags_another_model_or_a_damaged_file_is_refused(copy):
    flags = STAGES["sft"][2]
    stopped(copy, flags)
    refused(copy, f"{flags} --lr 0.5", "sft.part was begun with --lr 0.001, not 0.5")
    base = (copy / "base.pt").read_bytes()
    shutil.copy(copy / "dpo.pt", copy / "base.pt")
    refused(copy, flags, "another model or other data")
    (copy / "base.pt").write_bytes(base)
    with pytest.MonkeyPatch.context() as patch:                # one demonstration in the middle
        real = sft.demonstrations
        patch.setattr(sft, "demonstrations", lambda *args: [
            (p, "Yes." if i == 40 else answer) for i, (p, answer) in enumerate(real(*args))])
        refused(copy, flags, "another model or other data")
    kept = (copy / "sft.part").read_bytes()
    (copy / "sft.part").write_bytes(kept[:len(kept) // 2])
    refused(copy, flags, "sft.part is damaged", "delete")
    (copy / "sft.part").write_bytes(kept)
    call(sft, copy, f"{flags} --save-every 2 --resume")
    assert not (copy / "sft.part").exists()


def test_a_full_disk_leaves_what_was_kept_to_go_on_with(copy, tmp_path):
    """No file may grow beyond 10 kB, as on a full disk; afterwards there is room again."""
    flags = STAGES["sft"][2]
    call(sft, shutil.copytree(copy, tmp_path / "whole"), flags)
    stopped(copy, flags)
    before = {path: path.read_bytes() for path in copy.glob("*.p*t")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(SystemExit, match="sft.part: could not be written"):
            call(sft, copy, f"{flags} --save-every 1 --resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before == {path: path.read_bytes() for path in copy.glob("*.p*t")}
    call(sft, copy, f"{flags} --save-every 2 --resume")
    assert same(result(tmp_path / "whole", "sft", "sft"), result(copy, "sft", "sft"))
