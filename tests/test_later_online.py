"""Preferences about the current policy: who judges, what a tie is, what is imitated; small runs."""

import json
import random
import shutil

import pytest
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx
from torch.testing import assert_close

from conftest import SHORT, call
from data.batches import collate
from data.files import read_prompts, read_watched
from data.world.labelers import make_labelers
from data.world.utility import utility
from dpo import all_logprobs, flatten
from later import online
from later.online import Best, Online, collect, imitate, judge_answers, prefer, rank_answers
from model import load_gpt, respond
from reward import load_reward, score_all
from tools.steps import Steps

SMALL = f"--rounds 3 --asked 12 --minibatch 4 --prompts 40 {SHORT}"


@pytest.fixture(autouse=True)
def few_watched(monkeypatch):
    monkeypatch.setattr(online, "read_watched",
                        lambda source, seed, n: read_watched(source, seed, n=min(n, 10)))


def lines(out, name):
    *rows, last = map(json.loads, (out / "metrics" / f"{name}.jsonl").read_text().splitlines())
    return rows, last


# --- judges ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(out):
    """Prompts of the small world with three answers each: careful, wrong, and one without its
    end-of-text token."""
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts = read_prompts(30, "train")
    answers = [[tokenizer.encode(p.careful) + [tokenizer.eos], tokenizer.encode(p.wrong)
                + [tokenizer.eos], tokenizer.encode(p.careful)] for p in prompts]
    return prompts, answers, tokenizer


def judged(judge, answered, reward_model=None):
    prompts, answers, tokenizer = answered
    return judge_answers(Online(judge=judge), prompts, answers, tokenizer, reward_model,
                         make_labelers("train"), random.Random(0))


def test_the_truth_sees_the_answer_and_whether_it_ended(answered):
    for p, (good, wrong, endless) in zip(answered[0], judged("truth", answered)):
        assert good == utility(p, p.careful) > wrong and endless == approx(good - 1)


def test_labelers_mostly_see_what_is_better_and_give_an_order(answered):
    found = judged("labelers", answered)
    assert all(sorted(worth) == [-2, -1, 0] for worth in found)
    assert sum(good > wrong for good, wrong, _ in found) > 20


def test_the_reward_model_scores_what_ended_and_the_rest_gets_the_missing_end(out, answered):
    prompts, answers, tokenizer = answered
    model = load_reward(out / "reward.pt")
    found = judged("reward", answered, model)
    for p, ys, worth in zip(prompts, answers, found):
        examples = [(online.encode_prompt(tokenizer, p.text), y) for y in ys[:2]]
        assert worth == approx([*score_all(model, examples, "cpu").tolist(), -3.0], abs=1e-4)


def test_a_random_judge_knows_nothing(answered):
    firsts = [worth.index(max(worth)) for seed in range(40) for worth in judge_answers(
        Online(judge="random"), *answered, None, [], random.Random(seed))]
    assert [firsts.count(i) / len(firsts) for i in range(3)] == approx([1 / 3] * 3, abs=0.05)


def test_ranking_is_best_first_and_ties_and_equal_answers_are_left_out():
    assert rank_answers([[1], [2], [3]], [0.5, 2.0, 1.0]) == [[2], [3], [1]]
    assert rank_answers([[1], [2], [3]], [0.5, 2.0, 0.5]) == [[2], [1]]
    assert rank_answers([[7], [7], [8]], [0.1, 0.9, 0.5]) == [[7], [8]]
    assert rank_answers([[7], [7]], [0.1, 0.9]) == [[7]]


# --- a round --------------------------------------------------------------------------------------


class Echo:
    """Answers that name their prompt, k different ones each."""
    eot = 99

    def encode(self, text):
        return [ord(c) % 90 for c in text]

    def decode(self, ids):
        return str(ids)


def test_answers_stay_with_their_prompts_and_ties_are_counted(monkeypatch):
    prompts = read_prompts(5, "train")
    calls = []
    monkeypatch.setattr(online, "respond", lambda policy, tokenizer, texts, n: calls.append(
        (policy, texts)) or [[i // 3, i % 3 if i // 3 else 1, 99] for i in range(len(texts))])
    monkeypatch.setattr(online, "judge_answers", lambda config, prompts, answers, *rest: [
        [y[1] for y in ys] for ys in answers])
    items, stats = collect(Online(k=3), "now", prompts, Echo(), None, [], None)
    assert calls == [("now", [p.text for p in prompts for _ in range(3)])]
    assert [ys for _, ys in items] == [[[i, 2, 99], [i, 1, 99], [i, 0, 99]] for i in range(1, 5)]
    assert [prompt for prompt, _ in items] == [online.encode_prompt(Echo(), p.text)
                                               for p in prompts[1:]]
    assert stats["ties"] == approx(1 / 5) and stats["ended"] == 1
    items, _ = collect(Best(k=3), "now", prompts, Echo(), None, [], None)
    assert [ys[0] for _, ys in items] == [[0, 1, 99]] + [[i, 2, 99] for i in range(1, 5)]


ITEMS = [([1, 2], [[3, 5], [4, 4, 5]]), ([3], [[1, 1, 5], [2, 5]])]


def test_imitation_takes_the_best_answer_alone(out):
    policy = load_gpt(out / "sft.pt")[0]
    loss, _ = imitate(policy, None, ITEMS)
    tokens, mask = collate([(prompt, ys[0]) for prompt, ys in ITEMS])
    logp = all_logprobs(policy, [(prompt, ys[:1]) for prompt, ys in ITEMS], "cpu")
    assert loss.item() == approx(-logp.sum().item() / 5, abs=1e-4)      # 2 + 3 tokens


def test_preference_pushes_the_better_answer_up_against_a_reference_that_stays(out):
    policy, ref = (load_gpt(out / "sft.pt")[0] for _ in range(2))
    loss, stats = prefer(policy, ref.requires_grad_(False), ITEMS, 0.5)
    assert loss.item() == approx(0.693147, abs=1e-5) and stats["accuracy"] == 0.5
    before = all_logprobs(policy, ITEMS, "cpu")
    loss.backward()
    torch.optim.SGD(policy.parameters(), lr=0.01).step()
    w, l = (all_logprobs(policy, ITEMS, "cpu") - before).view(2, 2).unbind(dim=1)
    assert (w > l).all() and ref.lm_head.weight.grad is None
    assert_close(all_logprobs(ref, ITEMS, "cpu"), before)


# --- the script -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, name", [("--lr 1e-3 --rounds 16 --asked 24", "online"),
                                         ("--lr 3e-3 --stage best --rounds 4 --asked 48", "best")])
def test_the_judge_likes_what_is_learned(copy, flags, name):
    call(online, copy, f"--judge truth --minibatch 8 --prompts 40 {SHORT} {flags}")
    rows, last = lines(copy, name)
    half = len(rows) // 2
    assert (sum(row["worth"] for row in rows[half:]) / (len(rows) - half)
            > sum(row["worth"] for row in rows[:half]) / half + 0.1)
    assert last["kl"] > 0.01 and (copy / f"{name}.pt").is_file()


@pytest.mark.parametrize("flags", ["", "--judge labelers --k 3", "--judge random",
                                   "--stage best --judge reward", "--stage best --judge labelers",
                                   "--stage best --judge random"])
def test_every_judge_runs(copy, flags):
    call(online, copy, f"{SMALL} {flags}")
    rows, last = lines(copy, "best" if "best" in flags else "online")
    assert len(rows) == 3 and set(last) >= {"gold", "right", "kl", "length", "seconds"}


def test_each_round_asks_the_policy_of_now_and_the_reference_stays_sft(copy, monkeypatch):
    asked, refs = [], []
    monkeypatch.setattr(online, "respond", lambda policy, *rest: asked.append(
        policy.lm_head.weight.clone()) or respond(policy, *rest))
    monkeypatch.setattr(online, "prefer", lambda policy, ref, *rest: refs.append(
        ref.lm_head.weight.clone()) or prefer(policy, ref, *rest))
    call(online, copy, f"--judge truth --lr 1e-3 {SMALL}")
    sft = load_gpt(copy / "sft.pt")[0].lm_head.weight
    assert torch.equal(asked[0], sft) and all(torch.equal(ref, sft) for ref in refs)
    assert all(not torch.equal(a, b) for a, b in zip(asked, asked[1:]))


def test_prompts_with_other_numbers_of_ranked_answers_do_not_share_a_minibatch(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(online, "prefer", lambda policy, ref, batch, beta: seen.append(
        [len(ys) for _, ys in batch]) or prefer(policy, ref, batch, beta))
    call(online, copy, f"--judge truth --k 4 {SMALL}")
    assert all(len(set(counts)) == 1 for counts in seen) and len({c[0] for c in seen}) > 1


@pytest.mark.parametrize("flags, words", [
    ("--judge me", "--judge me"), ("--k 1", "--k 1"), ("--beta 0", "--beta"),
    ("--stage worst", "--stage"), ("--stage best --beta 1", "--beta"),
    ("--judge truth --prompts mine.jsonl", "--judge truth")])
def test_bad_flags_end_in_one_line(copy, flags, words):
    with pytest.raises(SystemExit) as stopped:
        call(online, copy, flags)
    message = str(stopped.value.code)
    assert message.startswith("error: ") and "\n" not in message and words in message


def test_without_a_reward_model_the_reward_judge_says_what_to_run(copy):
    (copy / "reward.pt").unlink()
    with pytest.raises(SystemExit, match="reward.pt not found"):
        call(online, copy, SMALL)
    call(online, copy, f"{SMALL} --judge labelers")


@pytest.mark.parametrize("flags, name", [("--judge labelers", "online"), ("--stage best", "best")])
def test_a_stopped_run_goes_on_and_ends_the_same(copy, tmp_path, monkeypatch, flags, name):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shutil.copytree(copy, whole)
    shutil.copytree(copy, stopped)
    call(online, whole, f"{SMALL} {flags}")
    monkeypatch.setattr("tools.steps.SAVE_EVERY", 0.0)
    log = Steps.log

    def stop(self, step, **values):
        if step == 1:
            raise KeyboardInterrupt
        log(self, step, **values)
    monkeypatch.setattr(Steps, "log", stop)
    with pytest.raises(SystemExit):
        call(online, stopped, f"{SMALL} {flags}")
    monkeypatch.setattr(Steps, "log", log)
    call(online, stopped, f"{SMALL} {flags} --resume")
    ends = [torch.load(folder / f"{name}.pt")["weights"] for folder in (whole, stopped)]
    assert all(torch.equal(x, ends[1][key]) for key, x in ends[0].items())
