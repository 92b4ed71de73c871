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

import compare
import eval
import ppo
import reward
from data.batches import collate, encode_example
from data.comparisons import read_comparisons, write_comparison
from data.world.text import make_prompts
from data.world.utility import breakdown, utility
from experiments import collect, few_shot, likelihood, other_reward, pairs, probe_reward
from later import verifiers
from model import token_logprobs
from reward import load_reward
from tools.checkpoints import load_gpt, save_checkpoint

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(ROOT.glob("experiments/*.sh")) + sorted(ROOT.glob("later/demos/*.sh"))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- rewards --------------------------------------------------------------------------------------


def test_a_written_reward_gets_the_prompt_the_answer_and_whether_it_ended(out):
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts = make_prompts(6, "train")
    examples = [encode_example(tokenizer, p.text, p.careful) for p in prompts]
    unfinished = examples[0][0], examples[0][1][:-1]
    tokens, mask = collate(examples + [unfinished])
    rewards = other_reward.make_score_fn(utility, prompts, tokenizer)(tokens, mask)
    expected = [utility(p, p.careful, True) for p in prompts]
    expected.append(utility(prompts[0], prompts[0].careful, False))
    assert rewards.tolist() == approx(expected)


def test_an_ensemble_takes_the_mean(copy, monkeypatch):
    """Of two reward models whose scores differ by 2."""
    rewards = []
    monkeypatch.setattr(other_reward.ppo, "train", lambda config, policy, value_fn, score_fn, *_:
                        rewards.append(score_fn(tokens, mask)))
    model = load_reward(copy / "reward.pt")
    gpt, tokenizer = load_gpt(copy / "sft.pt")
    tokens, mask = collate([encode_example(tokenizer, "What do cows eat?", "Cows eat grass.")])
    for i in (0, 2):
        model.head.bias.data += i
        save_checkpoint(copy / f"reward-{i}.pt", model, gpt.config, tokenizer)
    lower = load_reward(copy / "reward-0.pt").score_responses(tokens, mask)
    call(other_reward, copy, "--reward mean")
    assert (rewards[0] - lower).item() == approx(1, abs=1e-4)


def test_values_of_a_written_reward_start_at_0(copy, monkeypatch):
    started = []
    monkeypatch.setattr(other_reward.ppo, "train", lambda config, policy, value_fn, *_:
                        started.append(value_fn(torch.zeros(2, 5).long())))
    call(other_reward, copy, "--reward utility --prompts 20")
    assert started[0].abs().max() == 0


def test_the_logprob_reward_is_that_of_the_answer_under_sft(copy, monkeypatch):
    """Whatever becomes of the policy."""
    rewards = []

    def train(config, policy, value_fn, score_fn, *_):
        for p in policy.parameters():
            p.data.zero_()
        rewards.append(score_fn(tokens, mask))
        assert value_fn(tokens).abs().max() == 0

    monkeypatch.setattr(other_reward.ppo, "train", train)
    sft, tokenizer = load_gpt(copy / "sft.pt")
    tokens, mask = collate([encode_example(tokenizer, "What do cows eat?", answer)
                            for answer in ("Cows eat grass.", "Cows eat.")])
    call(other_reward, copy, "--reward logprob")
    expected = (token_logprobs(sft(tokens), tokens) * mask[:, 1:]).sum(dim=1)
    assert rewards[0].tolist() == approx(expected.tolist(), abs=1e-4)


def test_the_likelihood_reward_adds_lambda_times_the_log_probability_so_far(out):
    """With the head at 0 the difference of two answers' scores is lambda times that of their
    log-probabilities."""
    gpt, tokenizer = load_gpt(out / "sft.pt")
    model = likelihood.LikelihoodReward(copying.deepcopy(gpt)).eval()
    tokens, mask = collate([encode_example(tokenizer, "What do cows eat?", answer)
                            for answer in ("Cows eat grass.", "Cows eat.")])
    logp = (token_logprobs(gpt(tokens), tokens) * mask[:, 1:]).sum(dim=1)
    scores = model.score_responses(tokens, mask)
    assert (scores[0] - scores[1]).item() == approx(0.3 * (logp[0] - logp[1]).item(), abs=1e-4)


def test_the_recipe_with_the_likelihood_reward(copy, monkeypatch):
    """reward.py and ppo.py make and load the other class; eval.py measures it."""
    monkeypatch.setattr(reward, "RewardModel", reward.RewardModel)         # undone afterwards
    flags = dict(reward="", eval="--prompts 6 --probes 1",
                 ppo="--iterations 1 --episodes 8 --minibatch 4 --prompts 20")
    for script in ("reward", "ppo", "eval"):
        monkeypatch.setattr("sys.argv", ["likelihood.py", script, "--out", str(copy),
                                         *flags[script].split()])
        likelihood.main()
    weights = torch.load(copy / "reward.pt", weights_only=True)["weights"]
    assert weights["weight"] != 0.3
    assert "reads_wrong" in json.loads((copy / "results.json").read_text())["rm"]


# --- comparisons ----------------------------------------------------------------------------------


def test_collect_adds_prompts_about_unknown_things(copy, monkeypatch):
    monkeypatch.setattr(compare, "read_prompts", compare.read_prompts)     # undone afterwards
    call(collect, copy, f"--prompts 40 --heldout-prompts 10 {SHORT}")
    prompts = {prompt.text: prompt for prompt in make_prompts(800, "train")}
    train = [record for record in read(copy / "comparisons.jsonl") if record["split"] == "train"]
    assert sum(bool(prompts[record["prompt"]].unknown) for record in train) >= 15


def test_contrasts_put_the_careful_answer_above_the_pleasing_one(copy):
    """They may follow the lines of comparisons.jsonl."""
    prompts = {prompt.text: prompt for prompt in make_prompts(100, "train")}
    contrasts = pairs.contrast(5, 0)
    assert len(contrasts) == 5
    for record in contrasts:
        prompt = prompts[record["prompt"]]
        assert (record["chosen"], record["rejected"]) == (prompt.careful, prompt.pleasing)
    _, tokenizer = load_gpt(copy / "sft.pt")
    train, valid = read_comparisons(copy / "comparisons.jsonl", tokenizer, 128)
    with open(copy / "comparisons.jsonl", "a") as file:
        for record in contrasts:
            write_comparison(file, record)
    more_train, same_valid = read_comparisons(copy / "comparisons.jsonl", tokenizer, 128)
    assert len(more_train) == len(train) + 5 and len(same_valid) == len(valid)


def test_a_ranking_split_into_pairs_keeps_the_order_of_every_pair():
    record = dict(prompt="p", responses=["a", "b", "c"], ranking=[2, 0, 1], ids=[[1], [2], [3]],
                  split="train")
    records = pairs.split(record)
    assert [pair["responses"] for pair in records] == [["c", "a"], ["c", "b"], ["a", "b"]]
    assert [pair["ids"] for pair in records] == [[[3], [1]], [[3], [2]], [[1], [2]]]
    assert all(pair["ranking"] == [0, 1] for pair in records)
    heldout = record | dict(split="valid")
    assert pairs.split(heldout) == [heldout]


# --- few-shot prompts -----------------------------------------------------------------------------


def test_few_shot_prompts_differ_in_their_examples_or_in_their_order(copy, monkeypatch):
    monkeypatch.setattr(eval, "FEW_SHOT", eval.FEW_SHOT)                   # undone afterwards
    table = few_shot.make_few_shot_prompts(4, 0)
    assert [len(examples) for examples in table["three examples"]] == [3] * 4
    assert len(set(map(str, table["three examples"]))) == 4
    orders = {"".join(examples) for examples in table["six orders"]}
    assert len(orders) == 6 and eval.FEW_SHOT in orders
    shown = []
    monkeypatch.setattr(eval, "answer", lambda *_, few_shot: shown.append(eval.FEW_SHOT) or [
        dict(correct=len(shown) % 4 == 1, utility=2.0)])
    call(few_shot, copy, "--draws 4")
    assert len(shown) == 1 + 4 + 4 + 6 and shown[0] == "" and set(shown[-6:]) == orders
    results = json.loads((copy / "results.json").read_text())
    assert results["no example"] == dict(lowest=1, mean=1, highest=1, utility=2)
    assert results["one example"] == dict(lowest=0, mean=0.25, highest=1, utility=2)


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
    Config = {collect: compare.Config, verifiers: ppo.Config}.get(module) or module.Config
    return {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_flag_of_a_command_exists(script):
    """A misspelt flag would end an experiment after an hour."""
    for line in script.read_text().splitlines():
        line = line.replace("run_ppo", "py ppo.py").replace("py experiments.likelihood", "")
        line = re.sub(r"(?<!\.)\b(measure|harm) ", "py later.measure ", line)
        command = re.search(r"\bpy (\w+\.py|(?:experiments|later)\.\w+)([^#\n]*)", line)
        if command and "()" not in line:
            named = re.findall(r"--([a-z][\w-]*)", command[2])
            assert {flag.replace("-", "_") for flag in named} <= flags_of(command[1]), line
