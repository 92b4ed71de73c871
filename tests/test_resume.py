"""A stage that is interrupted and resumed ends with the same weights and the same log, bit for bit.
"""

import json

import pytest
import torch

import dpo
import ppo
import pretrain
import reward
import sft
from conftest import SHORT, call
from tools.training import Run

STAGES = {
    "base": (pretrain, "--documents 300 --steps 8 --batch 4 --vocab-size 600 --n-layer 1 "
                       "--n-head 2 --n-embd 32"),
    "sft": (sft, "--documents 50 --demonstrations 96 --batch 8 --epochs 1 --mix-every 2"),
    "reward": (reward, "--questions 20 --batch 8"),
    "ppo": (ppo, f"--iterations 6 --episodes 8 --minibatch 4 --prompts 40 {SHORT}"),
    "ppo_ptx": (ppo, "--ptx 1 --iterations 6 --episodes 8 --minibatch 8 --prompts 40 "
                     f"--documents 60 {SHORT}"),
    "dpo": (dpo, f"--batch 8 {SHORT}")}


class Interrupted(Exception):
    pass


def interrupt(monkeypatch, last_saved, stop):
    """Runs save after step `last_saved`, as they do after a round number of steps, and are
    interrupted after step `stop`."""
    log = Run.log

    def log_save_and_stop(self, step, **values):
        values = log(self, step, **values)
        if step == last_saved:
            self.save(step)
        if step == stop:
            raise Interrupted
        return values

    monkeypatch.setattr(Run, "log", log_save_and_stop)


def result(out, name):
    """The weights, and the lines of the log without seconds."""
    lines = []
    for line in (out / "metrics" / f"{name}.jsonl").read_text().splitlines():
        values = json.loads(line)
        values.pop("seconds", None)
        lines.append(values)
    return torch.load(out / f"{name}.pt", weights_only=True)["weights"], lines


@pytest.mark.parametrize("name", STAGES)
def test_a_resumed_stage_ends_as_an_uninterrupted_one(copy, name):
    module, flags = STAGES[name]
    call(module, copy, flags)
    weights, log = result(copy, name)
    (copy / f"{name}.pt").unlink()

    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt(monkeypatch, last_saved=2, stop=4)
        with pytest.raises(Interrupted):
            call(module, copy, flags)
    assert (copy / f"{name}.resume").is_file() and not (copy / f"{name}.pt").exists()
    call(module, copy, f"{flags} --resume")

    resumed_weights, resumed_log = result(copy, name)
    assert resumed_log == log
    assert [line["step"] for line in log] == [*range(len(log) - 1), -1] and len(log) > 5
    for key in weights:
        assert torch.equal(weights[key], resumed_weights[key]), key
    assert not (copy / f"{name}.resume").exists()


def test_dropout_masks_continue_where_they_were(copy):
    """With dropout, training draws random numbers at every step."""
    checkpoint = torch.load(copy / "base.pt", weights_only=True)
    checkpoint["config"]["dropout"] = 0.2
    torch.save(checkpoint, copy / "base.pt")
    test_a_resumed_stage_ends_as_an_uninterrupted_one(copy, "sft")


@pytest.fixture
def interrupted(copy):
    """A folder in which sft.py was interrupted."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt(monkeypatch, last_saved=2, stop=4)
        with pytest.raises(Interrupted):
            call(sft, copy, STAGES["sft"][1])
    return copy


def test_other_flags_are_refused_and_the_saved_state_stays(interrupted):
    with pytest.raises(SystemExit) as stop:
        call(sft, interrupted, f"{STAGES['sft'][1]} --lr 0.5 --resume")
    message = stop.value.code
    assert message.startswith("error: ") and "\n" not in message
    assert "sft.resume is from a run with other flags" in message
    call(sft, interrupted, f"{STAGES['sft'][1]} --resume")
    assert not (interrupted / "sft.resume").exists()


def test_a_finished_stage_is_not_started_again_by_resume(copy, capsys):
    before = (copy / "ppo.pt").read_bytes()
    with pytest.raises(SystemExit) as stop:
        call(ppo, copy, f"--resume --iterations 14 --episodes 8 --minibatch 4 {SHORT}")
    assert stop.value.code is None                           # success: scripts may go on
    assert "ppo.pt is finished; leave out --resume to train it again" in capsys.readouterr().out
    assert (copy / "ppo.pt").read_bytes() == before


def test_without_resume_a_stage_starts_again(interrupted):
    call(sft, interrupted, STAGES["sft"][1])
    _, log = result(interrupted, "sft")
    assert [line["step"] for line in log] == [*range(len(log) - 1), -1]


@pytest.mark.parametrize("module, flags, steps", [
    (ppo, f"--iterations 12 --episodes 4 --minibatch 4 --prompts 20 {SHORT}", [9]),
    (reward, "--questions 0 --batch 1 --epochs 3", [99])])
def test_stages_save_every_so_often(copy, monkeypatch, module, flags, steps):
    """As the README says, PPO every 10 iterations and the others every 100 steps."""
    saved = []
    monkeypatch.setattr(Run, "save", lambda self, step: saved.append(step))
    call(module, copy, flags)
    assert saved == steps
