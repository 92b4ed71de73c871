"""Learning from the policy's own responses: ranking, the losses, and small runs."""

import json
import random

import pytest
import torch
from conftest import SHORT, call
from pytest import approx
from torch.testing import assert_close

from data.batches import encode_prompt
from data.comparisons import Comparison, flatten
from data.files import read_prompts
from data.world.utility import utility
from dpo import logprob_all
from generate import respond
from later import online
from later.online import (Config, collect, imitation_loss, online_dpo_loss, rank, sample_responses,
                          score)
from reward import load_reward, score_all
from tools.checkpoints import load_gpt

SMALL = f"--rounds 3 --batch 12 --minibatch 4 {SHORT}"


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    monkeypatch.setattr(online, "read_prompts", lambda source, split, seed: read_prompts(
        10 if split == "valid" else 40, split, seed))


def lines(out, name):
    *rows, last = map(json.loads, (out / "metrics" / f"{name}.jsonl").read_text().splitlines())
    return rows, last


# --- 1 sample, 2 rank -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(out):
    """Prompts of the small world with three responses each: careful, wrong, and careful without
    end-of-text token."""
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts, responses = read_prompts(30, "train"), []
    for prompt in prompts:
        careful, wrong = tokenizer.encode(prompt.careful), tokenizer.encode(prompt.wrong)
        responses.append([careful + [tokenizer.eos], wrong + [tokenizer.eos], careful])
    return prompts, responses, tokenizer


def scores_by(rank_by, answered, reward_model=None, seed=0):
    return score(Config(rank_by=rank_by), *answered, reward_model, random.Random(seed))


def test_utility_depends_on_the_answer_and_on_whether_it_ended(answered):
    for prompt, scores in zip(answered[0], scores_by("utility", answered)):
        careful, wrong, unfinished = scores
        assert careful == utility(prompt, prompt.careful) > wrong
        assert unfinished == approx(careful - 1)


def test_labelers_rank_and_mostly_prefer_the_careful_answer(answered):
    scores = scores_by("labelers", answered)
    assert all(sorted(row) == [-2, -1, 0] for row in scores)
    assert sum(careful > wrong for careful, wrong, _ in scores) > 20


def test_the_reward_model_scores_finished_responses_and_others_get_a_fixed_score(out, answered):
    model = load_reward(out / "reward.pt")
    prompts, responses, tokenizer = answered
    all_scores = scores_by("reward", answered, model)
    for prompt, ids, scores in zip(prompts, responses, all_scores):
        start = encode_prompt(tokenizer, prompt.text)
        finished = score_all(model, [(start, ids[0]), (start, ids[1])], "cpu").tolist()
        assert scores == approx([*finished, -3.0], abs=1e-4)


def test_random_scores_are_independent_of_the_answer(answered):
    best = []
    for seed in range(40):
        best += [row.index(max(row)) for row in scores_by("random", answered, seed=seed)]
    assert [best.count(i) / len(best) for i in range(3)] == approx([1 / 3] * 3, abs=0.05)


def test_ranking_is_best_first_without_ties_and_equal_responses():
    assert rank([[1], [2], [3]], [0.5, 2.0, 1.0]) == [[2], [3], [1]]
    assert rank([[1], [2], [3]], [0.5, 2.0, 0.5]) == [[2], [1]]
    assert rank([[7], [7], [8]], [0.1, 0.9, 0.5]) == [[7], [8]]
    assert rank([[7], [7]], [0.1, 0.9]) == [[7]]


def test_responses_stay_with_their_prompts(out, monkeypatch):
    """Response j to prompt i is [i, j]; its score is j. All responses to prompt 0 are tied."""
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts = read_prompts(4, "train")
    monkeypatch.setattr(online, "respond", lambda policy, tokenizer, texts, n: [
        [[p.text for p in prompts].index(text), j % 3] for j, text in enumerate(texts)])
    responses = sample_responses(Config(k=3), None, prompts, tokenizer)
    assert responses == [[[i, 0], [i, 1], [i, 2]] for i in range(4)]
    scores = [[5, 5, 5]] + [[0, 1, 2]] * 3
    comparisons = collect(Config(), prompts, responses, scores, tokenizer)
    starts = [encode_prompt(tokenizer, prompt.text) for prompt in prompts]
    assert comparisons == [(starts[i], [[i, 2], [i, 1], [i, 0]]) for i in (1, 2, 3)]
    comparisons = collect(Config(method="best"), prompts, responses, scores, tokenizer)
    assert comparisons == [(starts[0], [[0, 0]])] + [(starts[i], [[i, 2]]) for i in (1, 2, 3)]


# --- 3 learn --------------------------------------------------------------------------------------

COMPARISONS = [Comparison([1, 2], [[3, 5], [4, 4, 5]]), Comparison([3], [[1, 1, 5], [2, 5]])]


def test_imitation_is_of_the_best_response_only(out):
    policy, _ = load_gpt(out / "sft.pt")
    loss = imitation_loss(policy, COMPARISONS, "cpu")
    logp = logprob_all(policy, [([1, 2], [3, 5]), ([3], [1, 1, 5])], "cpu")
    assert loss.item() == approx(-logp.sum().item() / 5, abs=1e-4)              # 2 + 3 tokens


def test_online_dpo_raises_the_better_response_against_a_fixed_reference(out):
    policy, ref = load_gpt(out / "sft.pt")[0], load_gpt(out / "sft.pt")[0].requires_grad_(False)
    loss, _ = online_dpo_loss(policy, ref, COMPARISONS, 0.5, "cpu")
    assert loss.item() == approx(0.693147, abs=1e-5)
    before = logprob_all(policy, flatten(COMPARISONS), "cpu")
    loss.backward()
    torch.optim.SGD(policy.parameters(), lr=0.01).step()
    change = (logprob_all(policy, flatten(COMPARISONS), "cpu") - before).view(2, 2)
    assert (change[:, 0] > change[:, 1]).all()
    assert_close(logprob_all(ref, flatten(COMPARISONS), "cpu"), before)


def test_online_dpo_compares_the_policy_with_its_reference(out):
    """h of each pair from log-probs of policy and reference, and log(1 + exp(-beta h))."""
    policy, ref = load_gpt(out / "sft.pt")[0], load_gpt(out / "base.pt")[0]
    examples = flatten(COMPARISONS)
    log_ratio = logprob_all(policy, examples, "cpu") - logprob_all(ref, examples, "cpu")
    h = log_ratio.view(2, 2)[:, 0] - log_ratio.view(2, 2)[:, 1]
    loss, _ = online_dpo_loss(policy, ref, COMPARISONS, 0.5, "cpu")
    assert loss.item() == approx(torch.log1p(torch.exp(-0.5 * h)).mean().item(), abs=1e-4)
    assert h.abs().max() > 0.1


# --- the script -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, name", [
    ("--lr 1e-3 --beta 0.1 --rounds 24 --batch 24 --k 4", "online"),
    ("--lr 1e-3 --method best --rounds 16 --batch 48", "best")])
def test_the_score_rises(copy, flags, name):
    call(online, copy, f"--rank-by utility --minibatch 16 {SHORT} {flags}")
    rows, last = lines(copy, name)
    scores = [row["score"] for row in rows]
    half = len(scores) // 2
    assert sum(scores[half:]) / half > sum(scores[:half]) / half + 0.1, scores
    assert last["kl"] > 0.01 and (copy / f"{name}.pt").is_file()


@pytest.mark.parametrize("flags", ["", "--rank-by labelers --k 3", "--rank-by random",
                                   "--method best", "--method best --rank-by labelers"])
def test_every_way_to_rank_runs(copy, flags):
    call(online, copy, f"{SMALL} {flags}")
    rows, last = lines(copy, "best" if "best" in flags else "online")
    assert len(rows) == 3 and set(last) >= {"utility", "correct", "kl", "length"}


def test_each_round_samples_the_current_policy_and_the_reference_stays_sft(copy, monkeypatch):
    """And the prompts of a minibatch have the same number of ranked responses."""
    sampled, references, counts = [], [], []

    def spy_respond(policy, *args):
        sampled.append(policy.lm_head.weight.clone())
        return respond(policy, *args)

    def spy_loss(policy, ref, comparisons, beta, device):
        references.append(ref.lm_head.weight.clone())
        counts.append({len(comparison.responses) for comparison in comparisons})
        return online_dpo_loss(policy, ref, comparisons, beta, device)
    monkeypatch.setattr(online, "respond", spy_respond)
    monkeypatch.setattr(online, "online_dpo_loss", spy_loss)
    call(online, copy, f"--rank-by utility --k 4 --lr 1e-3 {SMALL}")
    sft = load_gpt(copy / "sft.pt")[0].lm_head.weight
    assert torch.equal(sampled[0], sft) and all(torch.equal(ref, sft) for ref in references)
    assert not torch.equal(sampled[1], sampled[0]) and not torch.equal(sampled[2], sampled[1])
    assert all(len(different) == 1 for different in counts)


@pytest.mark.parametrize("flags, words", [
    ("--rank-by me", "--rank-by me"), ("--method worst", "--method worst")])
def test_bad_flags_end_in_one_line(copy, flags, words):
    with pytest.raises(SystemExit, match=words):
        call(online, copy, flags)
