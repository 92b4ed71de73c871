"""What experiments put in the place of the reward model, of the labelers, of one pass."""

import json
import sys

import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx

import ppo
from data.world.labelers import make_labelers
from data.world.text import make_prompts
from data.world.utility import breakdown, utility
from experiments import asking, ensemble, habits, liking, passes, shuffled, written_reward
from model import load_gpt


def answer_batch(tokenizer, pairs):
    """[(prompt, answer)] -> tokens, response, ended, as ppo.rollout hands them to a judge"""
    from data.batches import collate, encode_example
    tokens, response = collate([encode_example(tokenizer, *pair) for pair in pairs])
    return tokens, response, response.sum(dim=1).clamp(max=1)


def test_a_written_reward_sees_prompt_and_answer(out):
    _, tokenizer = load_gpt(out / "sft.pt")
    prompts = {p.text: p for p in make_prompts(6, "train")}
    pairs = [(text, p.careful) for text, p in prompts.items()]
    judge = written_reward.make_judge(gold, tokenizer, prompts)
    rewards = judge(None, *answer_batch(tokenizer, pairs), -3.0)
    assert rewards.tolist() == approx([utility(p, p.careful, True) for p in prompts.values()])
    bananas = written_reward.make_judge(written_reward.count_bananas, tokenizer, prompts)
    text = next(iter(prompts))
    assert bananas(None, *answer_batch(tokenizer, [(text, "Banana, banana.")]), -3.0).item() == 2


def test_an_ensemble_takes_the_mean_the_worst_or_the_mean_minus_the_variance():
    """Scores 1 and 3 of one answer: mean 2, worst 1, variance 1."""
    scores = torch.tensor([[1.0], [3.0]])
    found = {how: combine(scores).item() for how, combine in ensemble.COMBINE.items()}
    assert found == dict(one=1, mean=2, worst=1, variance=1)


def test_an_ensembles_answer_without_end_scores_what_is_missing():
    judge = ensemble.make_judge([lambda tokens: torch.ones(tokens.shape)] * 2, "mean")
    tokens, response = torch.zeros(2, 4).long(), torch.tensor([[0., 1, 1, 0], [0., 1, 1, 1]])
    assert judge(None, tokens, response, torch.tensor([1.0, 0.0]), -3.0).tolist() == [1, -3]


def test_a_fold_holds_out_a_fifth_of_the_labelers_and_all_folds_cover_them():
    labelers = make_labelers("train")
    held = []
    for fold in range(5):
        seen, unseen = asking.split_fold(labelers, fold)
        assert len(unseen) == 4 and len(seen) == 16
        assert not {one.name for one in seen} & {one.name for one in unseen}
        held += [one.name for one in unseen]
    assert sorted(held) == sorted(one.name for one in labelers)


def test_contrasting_records_put_the_careful_answer_above_the_pleasing_one(out):
    _, tokenizer = load_gpt(out / "sft.pt")
    known = {p.text: p for p in make_prompts(400, "train")}
    for record in asking.contrast(5, 0, tokenizer):
        prompt = known[record["prompt"]]
        assert record["responses"] == [prompt.careful, prompt.pleasing] and record["ranking"] == [0, 1]


def test_a_ranking_taken_apart_has_all_its_pairs_in_their_order():
    record = dict(prompt="p", responses=["a", "b", "c"], ranking=[2, 0, 1], ids=[[1], [2], [3]],
                  split="train")
    parts = shuffled.take_apart(record)
    assert [part["responses"] for part in parts] == [["c", "a"], ["c", "b"], ["a", "b"]]
    assert [part["ids"] for part in parts] == [[[3], [1]], [[3], [2]], [[1], [2]]]
    assert shuffled.take_apart(record | dict(split="valid")) == [record | dict(split="valid")]


def test_more_passes_make_more_steps_on_the_same_rollout(copy, monkeypatch):
    steps = []
    update = ppo.update
    monkeypatch.setattr(ppo, "update", lambda *given: steps.append(1) or update(*given))
    monkeypatch.setattr(ppo, "rollout", ppo.rollout)        # what passes.main puts there is undone
    monkeypatch.setattr(sys, "argv", ["passes.py", "--passes", "3", "--iterations", "1",
                                      "--episodes", "8", "--minibatch", "4", "--prompts", "20",
                                      "--out", str(copy)])
    passes.main()
    assert len(steps) == 6


def test_habits_of_answers_that_labelers_give():
    prompt = next(p for p in make_prompts(50, "train") if p.kind == "generation" and p.n_words > 8)
    assert habits.name_habit(prompt, prompt.careful) == "careful"
    assert habits.name_habit(prompt, "Do it yourself.") == "rude"
    assert habits.name_habit(prompt, "What a good question. " + prompt.careful) == "pleaser"
    assert habits.name_habit(prompt, prompt.careful + " There is much more to say.") == "rambling"
    assert habits.name_habit(prompt, prompt.terse) == "terse"


def test_more_prompts_about_unknown_things_are_ranked_by_the_labelers_that_are_asked(out):
    model, tokenizer = load_gpt(out / "sft.pt")
    config = asking.Config(out=str(out), k=3, unknown=4)
    judge = make_labelers("train")[0]
    records = list(asking.ask_about_unknown(config, model, tokenizer, [judge]))
    known = {p.text: p for p in make_prompts(400, "train")}
    assert records and all(known[record["prompt"]].unknown for record in records)
    assert {(r["labeler"], r["split"]) for r in records} == {(judge.name, "train")}


def test_liking_counts_how_often_the_tempting_answer_scores_above_the_careful_one(
        tmp_path, monkeypatch):
    """A reward model that scores an answer by its length, the longest first."""
    (tmp_path / "results.json").write_text('{"seed": 0}')
    monkeypatch.setattr(liking, "load_reward", lambda path: None)
    monkeypatch.setattr(liking, "load_gpt", lambda path: (None, None))
    monkeypatch.setattr(liking, "encode_example", lambda tokenizer, prompt, answer: answer)
    monkeypatch.setattr(liking, "score_all", lambda model, answers, device: torch.tensor(
        [float(len(answer)) for answer in answers]))
    monkeypatch.setattr(liking, "find_temptations", lambda n, seed: dict(
        agreeing=[("p", "short", "longer"), ("p", "longer", "short")],
        inventing=[("p", "short", "longer")], doubting=[("p", "same", "even")]))
    assert liking.measure_liking(tmp_path) == dict(agreeing=0.5, inventing=1, doubting=0.5)


def test_temptations_agree_invent_and_doubt_on_evaluation_prompts():
    found, known = liking.find_temptations(20, 0), {p.text: p for p in make_prompts(3000, "eval")}
    for kind, term in (("agreeing", "agrees"), ("inventing", "invented"), ("doubting", "withheld")):
        rows = [(known[text], careful, rival) for text, careful, rival in found[kind]
                if text in known]
        assert rows and all(breakdown(p, careful, True)[term] == 0 > breakdown(p, rival, True)[term]
                            for p, careful, rival in rows)
