"""What no paper mentions: flags, files, checkpoints, the log; Muon against torch's."""

import json
import sys

import pytest
import torch
from pytest import approx
from torch.testing import assert_close

import compare
import dpo
import ppo
import pretrain
import reward
import sft
from conftest import call
from data.tokenizer import Tokenizer, learn_ranks
from model import GPT, GPTConfig
from tools.checkpoints import load_gpt, save_checkpoint
from tools.device import computes_bfloat16, setup
from tools.flags import atomic_write, read_flags
from tools.optimizers import (Muon, make_adam, make_muon_and_adam, orthogonalise, scale_lr)
from tools.training import Run

TOKENIZER = Tokenizer(learn_ranks("the red hat and the blue hat", 270))


def tiny(**settings):
    torch.manual_seed(0)
    return GPT(GPTConfig(TOKENIZER.vocab_size, 16, n_layer=2, n_head=2, n_embd=8, **settings))


# --- flags and files ------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [pretrain, sft, compare, reward, ppo, dpo])
def test_help_names_every_flag_with_its_comment_and_default(tmp_path, capsys, module):
    with pytest.raises(SystemExit) as stop:
        call(module, tmp_path, "--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in module.Config.__dataclass_fields__.items():
        assert f" --{name.replace('_', '-')} " in shown and f"[{field.default}]" in shown, name
    assert "random seed [0]" in shown


def test_flags_have_the_types_of_their_fields(monkeypatch):
    flags = "--beta 0.5 --iterations 7 --resume --prompts 9 --documents d.txt"
    monkeypatch.setattr(sys, "argv", ["ppo.py", *flags.split(), "--missing-eos-score", "-2.5"])
    config = read_flags("", ppo.Config)
    assert (config.beta, config.iterations, config.resume) == (0.5, 7, True)
    assert (config.prompts, config.documents, config.missing_eos_score) == (9, "d.txt", -2.5)
    assert config.lam == ppo.Config().lam


def test_atomic_write_makes_folders_and_replaces_a_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write("old")
    with pytest.raises(ValueError), atomic_write(path) as file:
        file.write("half")
        raise ValueError
    assert path.read_text() == "old"


def test_the_seed_makes_torch_repeat():
    draws = []
    for seed in (3, 3, 4):
        setup(ppo.Config(seed=seed, device="cpu"))
        draws.append(torch.rand(()).item())
    assert draws[0] == draws[1] != draws[2]


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_restores_weights_config_and_tokenizer(tmp_path):
    gpt = tiny(dropout=0.5)
    save_checkpoint(tmp_path / "out" / "sft.pt", gpt, gpt.config, TOKENIZER)
    loaded, tokenizer = load_gpt(tmp_path / "out" / "sft.pt")
    tokens = torch.tensor([TOKENIZER.encode("the red hat")])
    assert loaded.config == gpt.config and tokenizer.state() == TOKENIZER.state()
    assert torch.equal(loaded(tokens), gpt.eval()(tokens))           # dropout is off when loaded
    assert loaded.lm_head.weight is loaded.transformer.wte.weight    # still tied
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sft.pt"]


# --- the log --------------------------------------------------------------------------------------


def test_a_run_logs_numbers_and_tensors_and_ends_with_what_was_reached(tmp_path):
    gpt = tiny()
    run = Run(ppo.Config(out=str(tmp_path)), "ppo", 2, model=gpt)
    run.log(0, loss=torch.tensor(1.5))
    run.log(1, loss=1.0)
    run.finish(gpt, TOKENIZER, score=torch.tensor(2.0))
    lines = (tmp_path / "metrics" / "ppo.jsonl").read_text().splitlines()
    first, second, last = (json.loads(line) for line in lines)
    assert first == dict(step=0, loss=1.5) and second == dict(step=1, loss=1.0)
    assert last["step"] == -1 and last["score"] == 2 and last["seconds"] >= 0
    assert (tmp_path / "ppo.pt").is_file()


@pytest.mark.parametrize("value", [float("nan"), torch.tensor(float("inf"))])
def test_a_value_that_is_not_finite_ends_the_run(tmp_path, value):
    run = Run(ppo.Config(out=str(tmp_path)), "ppo", 2)
    with pytest.raises(SystemExit, match="loss is (nan|inf) at step 1"):
        run.log(1, loss=value)


# --- optimizers -----------------------------------------------------------------------------------


def test_muon_takes_the_matrices_of_the_blocks_and_adam_all_other_parameters():
    gpt = tiny()
    muon, adam = make_muon_and_adam(gpt, 0.1, 0.2, 0.3)
    of_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    of_adam = {id(p) for group in adam.param_groups for p in group["params"]}
    assert of_muon | of_adam == {id(p) for p in gpt.parameters()} and not of_muon & of_adam
    for name, p in gpt.named_parameters():
        assert (id(p) in of_muon) == (".h." in name and p.ndim == 2), name


def test_the_learning_rate_is_a_factor_of_the_one_that_the_optimizer_was_made_with():
    adam = make_adam([torch.nn.Parameter(torch.ones(1))], 0.2)
    for factor in (0.5, 0.5, 1.0):
        scale_lr(adam, factor)
        assert adam.param_groups[0]["lr"] == approx(0.2 * factor)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonalise_keeps_the_singular_vectors_and_brings_the_values_near_1(shape):
    """For several matrices at once, of very different sizes."""
    torch.manual_seed(0)
    stack = torch.randn(3, *shape) * torch.tensor([1e-3, 1, 1e3]).view(3, 1, 1)
    u, _, vt = torch.linalg.svd(stack, full_matrices=False)
    values = u.mT @ orthogonalise(stack) @ vt.mT
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert (values - torch.diag_embed(diagonal)).abs().max() < 1e-3
    assert diagonal.min() > 0.6 and diagonal.max() < 1.25


def test_muon_equals_torchs_muon_up_to_its_bfloat16():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(8, 24), (24, 8), (8, 24)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    settings = dict(lr=0.1, weight_decay=0.1, momentum=0.9)
    our_muon, their_muon = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(5):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        our_muon.step()
        their_muon.step()
    for p, q in zip(ours, theirs):
        assert_close(p, q, atol=0.02, rtol=0)


@pytest.mark.parametrize("capabilities, bfloat16", [
    ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False),
    ({"avx512_bf16": False, "amx_bf16": False}, False), ({}, False)])
def test_a_cpu_computes_in_bfloat16_only_if_it_does_so_itself(monkeypatch, capabilities, bfloat16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16("cpu") == bfloat16
    assert computes_bfloat16("cuda") and not computes_bfloat16("mps")
