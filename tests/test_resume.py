"""A stage that is killed goes on with --resume and ends as one that was not, bit for bit. Each kill
is a SIGKILL that a forked child sends itself at a chosen moment."""

import json
import os
import resource
import shutil
import signal
import sys
from contextlib import contextmanager

import pytest
import tools               # before torch: it says how torch's threads wait
import torch

import compare
import dpo
import ppo
import reward
import sft
from conftest import SHORT, call
from data import comparisons
from tools import steps
from tools.flags import locks

STAGES = {
    "pretrain": (sft, "base", "--stage pretrain --documents 300 --steps 7 --batch 4 "
                              "--vocab-size 600 --n-layer 1 --n-head 2 --n-embd 32 --dropout 0.1"),
    "sft": (sft, "sft", "--documents 50 --demonstrations 96 --batch 16 --epochs 1 --mix 0.5"),
    "reward": (reward, "reward", "--batch 4"),
    "ppo": (ppo, "ppo", f"--iterations 6 --episodes 8 --minibatch 4 --prompts 40 {SHORT}"),
    "ppo_ptx": (ppo, "ppo_ptx", "--ptx 1 --iterations 5 --episodes 8 --minibatch 8 --prompts 40 "
                                f"--documents 60 {SHORT}"),
    "dpo": (dpo, "dpo", f"--batch 16 {SHORT}")}
ASK = f"--prompts 30 --heldout-prompts 4 {SHORT}"


# --- moments --------------------------------------------------------------------------------------


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
        steps.Steps.log = dies_at(steps.Steps.log, lambda self, step, **_: step == k)
    return kill


def before_the_rename():
    """Of the second save for --resume."""
    seen = []
    os.replace = dies_at(
        os.replace, lambda a, b: str(b).endswith(".part") and (seen.append(b), len(seen) == 2)[1])


def before_the_end():
    steps.Steps.end = die


def between_the_closing_line_and_the_checkpoint():
    steps.save = die


def before_the_checkpoint_is_renamed():
    os.replace = dies_at(os.replace, lambda a, b: str(b).endswith(".pt"))


def after_the_checkpoint():
    """But what is kept to go on with is still there."""
    steps.Path.unlink = die


def among_the_comparisons():
    count = iter(range(100))
    comparisons.write_line = dies_at(comparisons.write_line, lambda *_: next(count) == 9)


MOMENTS = {
    "pretrain": [at_step(3), before_the_end, between_the_closing_line_and_the_checkpoint],
    "sft": [at_step(1), at_step(3)],
    "reward": [at_step(1), at_step(3), before_the_rename],
    "ppo": [at_step(1), at_step(3), before_the_rename, before_the_end],
    "ppo_ptx": [at_step(3), before_the_rename, before_the_checkpoint_is_renamed],
    "dpo": [at_step(3), before_the_end, after_the_checkpoint]}


# --- kills ----------------------------------------------------------------------------------------


@contextmanager
def saving_every_other_step():
    """So that a log may hold lines of steps that are taken again."""
    save = steps.Steps.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "SAVE_EVERY", 0)
        patch.setattr(steps.Steps, "save",
                      lambda self, step, state: None if step % 2 else save(self, step, state))
        yield


@pytest.fixture
def every_other_step():
    with saving_every_other_step():
        yield


def killed(module, out, flags, prepare):
    """Runs the stage in a child that dies at the moment that `prepare` sets."""
    while locks:                                     # or the child would find this process's
        locks.pop().close()
    child = os.fork()
    if not child:
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1), os.dup2(nothing.fileno(), 2)
            prepare()
            call(module, out, flags)
        finally:
            os._exit(0)                              # never on into pytest
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def result(out, stage, name):
    """Weights, and the lines of the log without seconds."""
    lines = [json.loads(line) for line in (out / f"metrics/{stage}.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return torch.load(out / f"{name}.pt", weights_only=True)["weights"], lines


def same(a, b):
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(
        torch.equal(a[0][key], b[0][key]) for key in a[0])


def fresh(copy, tmp_path, stage, name):
    """A folder in which the stage has not run yet."""
    other = shutil.copytree(copy, tmp_path / "other")
    for path in (other / f"{name}.pt", other / f"metrics/{stage}.jsonl"):
        path.unlink()
    return other


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_the_same_bit_for_bit(copy, tmp_path, every_other_step,
                                                              stage):
    module, name, flags = STAGES[stage]
    call(module, copy, flags)
    whole = result(copy, stage, name)
    for moment in MOMENTS[stage]:
        other = fresh(copy, tmp_path, stage, name)
        killed(module, other, flags, moment)
        call(module, other, f"{flags} --resume")
        assert same(whole, result(other, stage, name)), f"{moment}"
        assert not list(other.glob("*.part")) and not list(other.glob("*.tmp*"))
        shutil.rmtree(other)


def test_a_stage_killed_three_times_ends_the_same(copy, monkeypatch):
    module, name, flags = STAGES["ppo"]
    call(module, copy, flags)
    whole = result(copy, "ppo", name)
    monkeypatch.setattr(steps, "SAVE_EVERY", 0)
    for k in (2, 3, 5):
        killed(module, copy, f"{flags} --resume", at_step(k))
    call(module, copy, f"{flags} --resume")
    assert same(whole, result(copy, "ppo", name))


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_who_is_killed_between_the_closing_line_and_the_checkpoint_finds_the_stage_undone(
        copy, tmp_path, monkeypatch, stage):
    """Also one so short that nothing was kept to go on with. What is there after a kill may be
    evaluated; the same command then does the stage, and ends with the same bits."""
    monkeypatch.setattr(steps, "SAVE_EVERY", 1e9)
    module, name, flags = STAGES[stage]
    call(module, copy, flags)
    whole = result(copy, stage, name)
    for moment in (between_the_closing_line_and_the_checkpoint, before_the_checkpoint_is_renamed):
        other = fresh(copy, tmp_path, stage, name)
        killed(module, other, flags, moment)
        last = (other / f"metrics/{stage}.jsonl").read_text().splitlines()[-1]
        assert json.loads(last)["step"] == -1
        assert not (other / f"{name}.pt").exists() and not (other / f"{name}.part").exists()
        call(module, other, f"{flags} --resume")
        assert same(whole, result(other, stage, name))
        assert not list(other.glob("*.tmp*"))
        shutil.rmtree(other)


def test_comparisons_are_whole_or_those_of_before_and_a_rerun_writes_the_same(copy):
    call(compare, copy, ASK)
    whole = (copy / "comparisons.jsonl").read_bytes()
    call(compare, copy, f"{ASK} --seed 1")
    before = (copy / "comparisons.jsonl").read_bytes()
    killed(compare, copy, ASK, among_the_comparisons)
    assert (copy / "comparisons.jsonl").read_bytes() == before != whole
    (copy / "comparisons.jsonl").unlink()
    killed(compare, copy, ASK, among_the_comparisons)
    assert not (copy / "comparisons.jsonl").exists()
    call(compare, copy, ASK)
    assert (copy / "comparisons.jsonl").read_bytes() == whole
    assert not list(copy.glob("*.tmp*"))


# --- refusals -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped_once(out, tmp_path_factory):
    folder = shutil.copytree(out, tmp_path_factory.mktemp("stopped") / "out")
    with saving_every_other_step():
        killed(sft, folder, STAGES["sft"][2], at_step(3))
    assert (folder / "sft.part").is_file()
    return folder


@pytest.fixture
def stopped(stopped_once, every_other_step, tmp_path, monkeypatch):
    """A folder in which sft.py was killed at its fourth step; two steps are saved, three logged."""
    monkeypatch.setattr(sys, "argv", [])
    return shutil.copytree(stopped_once, tmp_path / "out")


def refused(out, flags, *names):
    """In one line that holds all names. What was kept to go on with stays as it is."""
    before = (out / "sft.part").read_bytes(), (out / "metrics/sft.jsonl").read_bytes()
    with pytest.raises(SystemExit) as stop:
        call(sft, out, f"{flags} --resume")
    message = stop.value.code
    assert message.startswith("error: ") and "\n" not in message, message
    assert all(name in message for name in names), message
    assert before == ((out / "sft.part").read_bytes(), (out / "metrics/sft.jsonl").read_bytes())


def test_going_on_with_other_flags_another_model_or_a_damaged_file_is_refused(stopped):
    flags = STAGES["sft"][2]
    refused(stopped, f"{flags} --lr 0.5", "sft.part was begun with --lr 0.001, not 0.5")
    base = (stopped / "base.pt").read_bytes()
    shutil.copy(stopped / "dpo.pt", stopped / "base.pt")
    refused(stopped, flags, "another model or other data")
    (stopped / "base.pt").write_bytes(base)
    with pytest.MonkeyPatch.context() as patch:                # one demonstration in the middle
        real = sft.read_demonstrations
        patch.setattr(sft, "read_demonstrations", lambda *args: [
            (p, "Yes." if i == 40 else answer) for i, (p, answer) in enumerate(real(*args))])
        refused(stopped, flags, "another model or other data")
    kept = (stopped / "sft.part").read_bytes()
    (stopped / "sft.part").write_bytes(kept[:len(kept) // 2])
    refused(stopped, flags, "sft.part is damaged", "delete")
    (stopped / "sft.part").write_bytes(kept)
    call(sft, stopped, f"{flags} --resume")
    assert not (stopped / "sft.part").exists()


@pytest.mark.parametrize("spoilt", [
    dict(step=-1), dict(step=0), dict(step=4), dict(step=10 ** 9), dict(step="2"), dict(step=None),
    dict(seconds="long"), dict(flags=[]), dict(state={}), dict(random=[]),
    "step", "seconds", "origin", "flags", "state", "random"], ids=str)
def test_what_was_kept_to_go_on_with_but_cannot_be_right_is_refused(stopped, spoilt):
    """Something in it, or without something. Its checksums are right: it is another program's."""
    kept = torch.load(stopped / "sft.part", weights_only=True)
    if isinstance(spoilt, str):
        del kept[spoilt]
    else:
        kept.update(spoilt)
    torch.save(kept, stopped / "sft.part")
    refused(stopped, STAGES["sft"][2], f"{stopped}/sft.part", "damaged", "delete")


@pytest.mark.parametrize("spoil", [
    lambda lines: [], lambda lines: lines[:1], lambda lines: lines[1:],
    lambda lines: [lines[0], lines[2]], lambda lines: [lines[1], lines[0]],
    lambda lines: [lines[0], lines[1][:-4]], lambda lines: [lines[0], b"5"],
    lambda lines: [b"\xff" + lines[0], lines[1]], lambda lines: [b"[" * 100_000, lines[1]]],
    ids=["empty", "last", "first", "middle", "order", "cut", "number", "bytes", "nested"])
def test_a_log_that_lost_lines_is_refused(stopped, spoil):
    """As after a power cut, when what goes on from it was on the disk and the log was not."""
    path = stopped / "metrics/sft.jsonl"
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3
    path.write_bytes(b"".join(line + b"\n" for line in spoil(lines)))
    refused(stopped, STAGES["sft"][2], f"{path} is damaged", "delete")


def test_a_log_that_is_gone_is_refused_and_a_new_beginning_is_not(stopped):
    path, flags = stopped / "metrics/sft.jsonl", STAGES["sft"][2]
    path.unlink()
    with pytest.raises(SystemExit, match="^error: .*metrics/sft.jsonl is damaged; delete .*$"):
        call(sft, stopped, f"{flags} --resume")
    (stopped / "sft.part").unlink()
    call(sft, stopped, f"{flags} --resume")
    assert [line["step"] for line in result(stopped, "sft", "sft")[1]][-1] == -1


def test_a_full_disk_leaves_what_was_kept_to_go_on_with(stopped, tmp_path, monkeypatch):
    """No file may grow beyond 10 kB, as on a full disk; afterwards there is room again."""
    flags = STAGES["sft"][2]
    call(sft, shutil.copytree(stopped, tmp_path / "whole"), flags)
    before = {path: path.read_bytes() for path in stopped.glob("*.p*t")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(SystemExit, match="sft.part: could not be written"):
            call(sft, stopped, f"{flags} --resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before == {path: path.read_bytes() for path in stopped.glob("*.p*t")}
    call(sft, stopped, f"{flags} --resume")
    assert same(result(tmp_path / "whole", "sft", "sft"), result(stopped, "sft", "sft"))
