"""What test files share: the folder that all stages wrote."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))     # so that `pytest` alone finds model.py
import tools                           # first, since it says how torch's threads wait
import torch

torch.set_num_threads(1)               # on so little work threads only wait for each other

import compare
import dpo
import eval as evaluation
import ppo
import reward
import sft
from data.files import read_watched
from tools.flags import known, locks, run

SHORT = "--max-new-tokens 24"
ppo.read_watched = dpo.read_watched = lambda source, seed: read_watched(source, seed, n=10)


def call(module, out, flags=""):
    """One stage as from the command line."""
    sys.argv = [f"{module.__name__}.py", "--out", str(out), *flags.split()]
    known.clear()                      # what the stage before left in this same process
    while locks:
        locks.pop().close()
    run(module.main)


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """All stages, once."""
    folder, argv = tmp_path_factory.mktemp("out"), sys.argv
    call(sft, folder, "--stage pretrain --documents 300 --steps 50 --batch 8 "
                      "--vocab-size 800 --n-layer 2 --n-head 2 --n-embd 48")
    call(sft, folder, "--documents 100 --demonstrations 320 --epochs 2")
    call(compare, folder, f"--prompts 40 --heldout-prompts 20 {SHORT}")
    call(reward, folder, "--epochs 6 --lr 0.005")
    call(ppo, folder, "--iterations 12 --episodes 32 --minibatch 8 --prompts 40 "
                      f"--lr 3e-3 {SHORT}")
    call(ppo, folder, f"--ptx 1 --iterations 2 --episodes 8 --minibatch 4 {SHORT}")
    call(dpo, folder, f"--epochs 4 {SHORT}")
    call(evaluation, folder, f"--prompts 10 --probes 2 {SHORT}")
    sys.argv = argv
    return folder


@pytest.fixture
def copy(out, tmp_path, monkeypatch):
    """A copy of the folder to spoil."""
    monkeypatch.setattr(sys, "argv", [])
    return shutil.copytree(out, tmp_path / "out")
