"""The experiments' rewards, comparisons and reward models; every command of the shell scripts."""

import copy as copying
import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHORT, call
from pytest import approx

import ppo
from data.batches import collate, encode_example
from data.world.text import make_prompts
from data.world.utility import breakdown, utility
from experiments import collect, likelihood, other_reward, probe_reward, shuffled
from model import token_logprobs
from reward import score
from tools.checkpoints import load_gpt

SCRIPTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.sh"))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- rewards --------------------------------------------------------------------------------------


def test_a_written_reward_gets_the_prompt_the_answer_and_whether_it_ended(out):
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts = make_prompts(6, "train")
    examples = [encode_example(tokenizer, p.text, p.careful) for p in prompts]
    unfinished = examples[0][0], examples[0][1][:-1]
    tokens, mask = collate(examples + [unfinished])
    rewards = other_reward.score_with(utility, tokenizer, prompts)(tokens, mask)
    expected = [utility(p, p.careful, True) for p in prompts]
    expected.append(utility(prompts[0], prompts[0].careful, False))
    assert rewards.tolist() == approx(expected)
    tokens, mask = collate([encode_example(tokenizer, prompts[0].text, "Banana, banana.")])
    count = other_reward.score_with(other_reward.count_bananas, tokenizer, prompts)
    assert count(tokens, mask).tolist() == [2]


def test_an_ensemble_takes_the_mean_the_worst_or_the_mean_minus_the_variance():
    """Scores 1 and 3 of one answer: mean 2, worst 1, variance 1."""
    scores = torch.tensor([[1.0], [3.0]])
    combined = {how: other_reward.combine(scores, how).item() for how in
                ("mean", "worst", "variance")}
    assert combined == dict(mean=2, worst=1, variance=1)


def test_values_of_a_written_reward_start_at_0(copy, monkeypatch):
    started = []
    monkeypatch.setattr(other_reward.ppo, "train", lambda config, policy, value_fn, *_:
                        started.append(value_fn(torch.zeros(2, 5).long())))
    call(other_reward, copy, "--reward utility --prompts 20")
    assert started[0].abs().max() == 0


def test_the_likelihood_reward_adds_lambda_times_the_log_probability_so_far(out):
    """With the head at 0 the difference of two answers' scores is lambda times that of their
    log-probabilities."""
    gpt, tokenizer = load_gpt(out / "sft.pt")
    model = likelihood.LikelihoodReward(copying.deepcopy(gpt)).eval()
    tokens, mask = collate([encode_example(tokenizer, "What do cows eat?", answer)
                            for answer in ("Cows eat grass.", "Cows eat.")])
    logp = (token_logprobs(gpt(tokens), tokens) * mask[:, 1:]).sum(dim=1)
    scores = score(model(tokens), mask)
    assert (scores[0] - scores[1]).item() == approx(0.3 * (logp[0] - logp[1]).item(), abs=1e-4)


def test_ppo_on_the_likelihood_reward(copy):
    call(likelihood, copy, f"--iterations 1 --episodes 8 --minibatch 4 --prompts 20 {SHORT}")
    assert "weight" in read(copy / "metrics/likelihood.jsonl")[-1]
    assert (copy / "likelihood.pt").exists() and (copy / "ppo.pt").exists()


# --- comparisons ----------------------------------------------------------------------------------


def test_collect_adds_contrasts_and_prompts_about_unknown_things(copy):
    call(collect, copy, f"--prompts 10 --heldout-prompts 10 --unknown 4 --contrast 5 {SHORT}")
    records = read(copy / "comparisons.jsonl")
    prompts = {prompt.text: prompt for prompt in make_prompts(3000, "train")}
    contrasts = [record for record in records if record["labeler"] == "contrast"]
    assert len(contrasts) == 5
    for record in contrasts:
        prompt = prompts[record["prompt"]]
        assert record["responses"] == [prompt.careful, prompt.pleasing]
        assert record["ranking"] == [0, 1]
    train = [r for r in records if r["split"] == "train" and r not in contrasts]
    assert sum(bool(prompts[r["prompt"]].unknown) for r in train) >= 3
    valid = [record for record in records if record["split"] == "valid"]
    assert valid and all("utilities" in record for record in valid)


def test_a_ranking_split_into_pairs_keeps_the_order_of_every_pair():
    record = dict(prompt="p", responses=["a", "b", "c"], ranking=[2, 0, 1], ids=[[1], [2], [3]],
                  split="train")
    pairs = shuffled.split_into_pairs(record)
    assert [pair["responses"] for pair in pairs] == [["c", "a"], ["c", "b"], ["a", "b"]]
    assert [pair["ids"] for pair in pairs] == [[[3], [1]], [[3], [2]], [[1], [2]]]
    assert all(pair["ranking"] == [0, 1] for pair in pairs)
    heldout = record | dict(split="valid")
    assert shuffled.split_into_pairs(heldout) == [heldout]


# --- what a reward model prefers ------------------------------------------------------------------


def test_rivals_affirm_invent_and_doubt():
    rivals = probe_reward.make_rivals(20, 0)
    prompts = {prompt.text: prompt for prompt in make_prompts(2000, "eval")}
    for kind, term in (("affirming", "affirms"), ("inventing", "invents"), ("doubting", "refuses")):
        assert rivals[kind]
        for text, careful, rival in rivals[kind]:
            prompt = prompts[text]
            assert breakdown(prompt, careful)[term] == 0 > breakdown(prompt, rival)[term]


def test_the_length_slope_of_known_scores():
    """score = 2 utility + 0.5 log words + a constant of the prompt."""
    utilities, log_words = [[0.0, 1, 3], [2.0, 1]], [[1.0, 2, 1], [0.0, 3]]
    scores = []
    for constant, u, w in zip((7, -4), utilities, log_words):
        scores.append(2 * np.array(u) + 0.5 * np.array(w) + constant)
    assert probe_reward.length_slope(scores, utilities, log_words) == approx(0.5)


# --- the shell scripts ----------------------------------------------------------------------------


def flags_of(script):
    module = importlib.import_module(script.removesuffix(".py"))
    Config = ppo.Config if module is likelihood else module.Config
    return {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_flag_of_a_command_exists(script):
    """A misspelt flag would end an experiment after an hour."""
    for line in script.read_text().splitlines():
        command = re.search(r"\bpy (\w+\.py|experiments\.\w+)([^#\n]*)", line)
        if command and "()" not in line:
            named = re.findall(r"--([a-z][\w-]*)", command[2])
            assert {flag.replace("-", "_") for flag in named} <= flags_of(command[1]), line
