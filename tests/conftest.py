"""What the test files share: a folder in which every stage has run, and a way to call a script."""

import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))     # so that pytest finds model.py

import compare
import dpo
import eval as evaluation
import ppo
import pretrain
import reward
import sft
from data.files import read_prompts

torch.set_num_threads(1)               # two test processes share two cores
torch.cpu.get_capabilities = dict      # tests compute in float32, also where bfloat16 is native
SHORT = "--max-new-tokens 24"


def read_few_prompts(source, split, seed):
    """ppo.py and dpo.py watch 200 validation prompts, which takes longer than a tiny training."""
    return read_prompts(10 if split == "valid" else source, split, seed)


ppo.read_prompts = dpo.read_prompts = read_few_prompts


def call(module, out, flags=""):
    """Runs a script's main as from the command line: `python module.py --out OUT flags`."""
    argv, interrupt_handler = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = [f"{module.__name__}.py", "--out", str(out), *flags.split()]
    try:
        module.main()
    finally:
        sys.argv = argv
        signal.signal(signal.SIGINT, interrupt_handler)        # read_flags sets one for the script


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """A folder in which every stage has run, tiny."""
    folder = tmp_path_factory.mktemp("out")
    call(pretrain, folder, "--documents 300 --steps 50 --batch 8 "
                           "--vocab-size 800 --n-layer 2 --n-head 2 --n-embd 48")
    call(sft, folder, "--documents 100 --demonstrations 320")
    call(compare, folder, f"--prompts 40 --heldout-prompts 20 {SHORT}")
    call(reward, folder, "--questions 60 --epochs 6 --lr 0.005")
    call(ppo, folder, "--iterations 12 --episodes 32 --minibatch 8 --prompts 40 "
                      f"--lr 3e-3 {SHORT}")
    call(ppo, folder, f"--ptx 1 --iterations 2 --episodes 8 --minibatch 4 --prompts 40 {SHORT}")
    call(dpo, folder, f"--epochs 4 --lr 3e-4 {SHORT}")
    call(evaluation, folder, f"--prompts 10 --probes 2 {SHORT}")
    return folder


@pytest.fixture
def copy(out, tmp_path):
    """A copy of that folder which a test may change."""
    return shutil.copytree(out, tmp_path / "out")
