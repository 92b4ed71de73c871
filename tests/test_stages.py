"""Every stage through its main, tiny: its metric improves, its log is whole, and it repeats."""

import json
import math

import pytest
import torch

import dpo
import ppo
import reward
import sft
from conftest import SHORT, call
from data.batches import collate, encode_example
from data.comparisons import flatten, label_accuracy, read_comparisons, split_by_prompt
from data.world.text import make_demonstrations
from dpo import logprob_all
from pretrain import measure_loss
from tools.checkpoints import load_gpt

TINY_PPO = f"--iterations 6 --episodes 8 --minibatch 4 --prompts 40 {SHORT}"


def read_log(out, name):
    """The lines of a stage's log, and the last one, which has step -1."""
    lines = [json.loads(line) for line in (out / f"metrics/{name}.jsonl").read_text().splitlines()]
    return lines[:-1], lines[-1]


def mean(lines, key):
    return sum(line[key] for line in lines) / len(lines)


def load_weights(path):
    return torch.load(path, weights_only=True)["weights"]


def equal_weights(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


# --- each stage improves its metric ---------------------------------------------------------------


def test_pretraining_lowers_the_loss_from_that_of_a_uniform_guess(out):
    lines, last = read_log(out, "base")
    assert lines[0]["loss"] > 0.9 * math.log(800)
    assert max(mean(lines[-5:], "loss"), last["heldout_loss"]) < lines[0]["loss"] - 2


def test_sft_has_a_lower_loss_than_the_base_model_on_held_out_demonstrations(out):
    losses = {}
    for name in ("base", "sft"):
        gpt, tokenizer = load_gpt(out / f"{name}.pt")
        examples = []
        for prompt, answer in make_demonstrations(60, "valid", 0):
            examples.append(encode_example(tokenizer, prompt.text, answer))
        losses[name] = measure_loss(gpt, *collate(examples))
    assert losses["sft"] < losses["base"] - 0.2, losses


def test_the_reward_model_learns_its_rankings_and_demonstrations_score_0(out):
    lines, last = read_log(out, "reward")
    assert mean(lines[-8:], "loss") < min(math.log(2), mean(lines[:8], "loss")) - 0.1
    assert 0 < last["accuracy"] < 1
    model, (_, tokenizer) = reward.load_reward(out / "reward.pt"), load_gpt(out / "sft.pt")
    train, _ = read_comparisons(out / "comparisons.jsonl", tokenizer, 128)
    scores = reward.score_all(model, flatten(train), "cpu")
    assert label_accuracy(split_by_prompt(scores, train)) > 0.75
    examples = []
    for prompt, answer in make_demonstrations(500, "train", 0):
        examples.append(encode_example(tokenizer, prompt.text, answer))
    scores = reward.score_all(model, examples, "cpu")
    assert scores.mean().abs() < 1e-3 and scores.std() > 0.1


def test_ppo_raises_the_score_and_the_kl_which_is_0_at_first(out):
    lines, _ = read_log(out, "ppo")
    assert abs(lines[0]["kl"]) < 1e-3 < 0.1 < lines[-1]["kl"]
    assert mean(lines[-4:], "score") > mean(lines[:2], "score") + 0.1


def test_ppo_saves_the_average_not_the_last_policy(copy):
    """With a decay of 1 - 1e-9 the average hardly leaves the SFT model."""
    call(ppo, copy, f"{TINY_PPO} --ema 0.999999999")
    sft_weights, saved = load_weights(copy / "sft.pt"), load_weights(copy / "ppo.pt")
    for name in sft_weights:
        torch.testing.assert_close(sft_weights[name], saved[name], atol=1e-6, rtol=0)


def test_pretraining_gradients_reach_the_end_of_the_context(out):
    """Episodes are short, so that they leave the embeddings of the last positions unchanged; text
    windows have the length of the context."""
    embeddings = {}
    for name in ("sft", "ppo", "ppo_ptx"):
        gpt, _ = load_gpt(out / f"{name}.pt")
        embeddings[name] = gpt.transformer.wpe.weight[-2]
    assert torch.equal(embeddings["ppo"], embeddings["sft"])
    assert not torch.equal(embeddings["ppo_ptx"], embeddings["sft"])


def test_dpo_orders_its_pairs(out):
    lines, last = read_log(out, "dpo")
    assert mean(lines[-5:], "loss") < math.log(2) - 0.05
    assert mean(lines[-5:], "reward_chosen") > mean(lines[-5:], "reward_rejected")
    assert last["accuracy"] > 0.5
    (policy, tokenizer), (ref, _) = load_gpt(out / "dpo.pt"), load_gpt(out / "sft.pt")
    train, _ = read_comparisons(out / "comparisons.jsonl", tokenizer, 128)
    examples = flatten(train)
    implicit = logprob_all(policy, examples, "cpu") - logprob_all(ref, examples, "cpu")
    assert label_accuracy(split_by_prompt(implicit, train)) > 0.75


# --- the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "sft", "reward", "ppo", "ppo_ptx", "dpo"])
def test_the_log_has_every_step_once_and_then_what_was_reached(out, name):
    lines, last = read_log(out, name)
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert last["step"] == -1 and last["seconds"] > 0
    for line in (*lines, last):
        assert all(math.isfinite(value) for value in line.values())


def test_a_stage_ends_with_one_line_with_what_it_reached(copy, capsys):
    call(dpo, copy, SHORT)
    line = capsys.readouterr().out.splitlines()[-1]
    _, last = read_log(copy, "dpo")
    assert line.startswith(f"{copy}/dpo.pt: accuracy {last['accuracy']:.3f}, ")
    assert line.endswith(" s")


# --- repetition -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(copy):
    runs = []
    for seed in (0, 0, 1):
        call(ppo, copy, f"--iterations 1 --episodes 8 --minibatch 4 --seed {seed} {SHORT}")
        runs.append(load_weights(copy / "ppo.pt"))
    assert equal_weights(runs[0], runs[1]) and not equal_weights(runs[0], runs[2])


@pytest.mark.parametrize("module, flags", [(ppo, TINY_PPO), (dpo, f"--epochs 2 --batch 1 {SHORT}")])
def test_watching_does_not_change_what_is_learned(copy, monkeypatch, module, flags):
    """Watched in the middle on 5 prompts, on 6 and not at all: the same weights, bit for bit."""
    runs, watch = [], module.watch
    for n in (5, 6, 0):
        monkeypatch.setattr(module, "watch", lambda model, tokenizer, prompts, *rest:
                            watch(model, tokenizer, prompts[:n], *rest))
        call(module, copy, flags)
        lines, last = read_log(copy, module.__name__)
        n_watched = sum("utility" in line and "correct" in line for line in lines)
        assert n_watched == (1 if n else 0) and ("utility" in last) == (n > 0)
        runs.append(load_weights(copy / f"{module.__name__}.pt"))
    assert equal_weights(runs[0], runs[1]) and equal_weights(runs[0], runs[2])


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module, flags", [
    (ppo, f"--iterations 1 --episodes 8 --minibatch 4 --lr 1e-9 {SHORT}"),
    (dpo, f"--lr 1e-9 {SHORT}"), (sft, "--demonstrations 32 --documents 50 --lr 1e-9 --epochs 1")])
def test_a_stage_starts_from_the_checkpoint_of_init_from(copy, module, flags):
    """Almost nothing is learned, so that it ends where it started."""
    call(module, copy, f"--init-from base {flags}")
    base, saved = load_weights(copy / "base.pt"), load_weights(copy / f"{module.__name__}.pt")
    torch.testing.assert_close(saved["lm_head.weight"], base["lm_head.weight"], atol=1e-5, rtol=0)


def test_ppo_in_bfloat16_starts_with_a_kl_of_0(copy):
    try:
        call(ppo, copy, f"--precision bfloat16 {TINY_PPO}")
    finally:
        ppo.setup(ppo.Config())
    lines, _ = read_log(copy, "ppo")
    assert abs(lines[0]["kl"]) < 1e-3
