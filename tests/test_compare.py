"""Step 2a: what is sampled and ranked, by whom, and what is recorded."""

import json

import pytest

import compare
import reward
from compare import Config, collect
from conftest import SHORT, call
from data.comparisons import read_comparisons
from data.tokenizer import Tokenizer, learn_ranks
from data.world.labelers import make_labelers
from data.world.text import make_prompts

TOKENIZER = Tokenizer(learn_ranks("the red hat and the blue hat", 270))
FLAGS = f"--prompts 12 --heldout-prompts 6 {SHORT}"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Longest:
    """Ranks by length, the longest first."""
    name = "longest"

    def rank(self, prompt, answers, rng):
        return sorted(range(len(answers)), key=lambda i: -len(answers[i][0]))


def collect_with(monkeypatch, answer, n=100, labelers=(Longest(),), split="train", **flags):
    """Records of n prompts whose i-th sampled answer is `answer(prompt's text, i)`; an answer that
    ends in a dot has an eos."""
    def respond(model, tokenizer, texts, max_new_tokens, temperature=1.0, title=None):
        responses = []
        for i, text in enumerate(texts):
            eos = [tokenizer.eos] if answer(text, i).endswith(".") else []
            responses.append(tokenizer.encode(answer(text, i)) + eos)
        return responses

    monkeypatch.setattr(compare, "respond", respond)
    prompts = make_prompts(n, split)
    return prompts, list(collect(Config(**flags), None, TOKENIZER, prompts, labelers, split))


# --- a comparison ---------------------------------------------------------------------------------


def test_k_is_drawn_from_4_to_9_and_one_answer_is_a_demonstration(monkeypatch):
    """K - 1 answers are sampled for each prompt, all of them to that prompt."""
    prompts, records = collect_with(monkeypatch, lambda text, i: f"{text} {i}.")
    assert {len(record["responses"]) for record in records} == set(range(4, 10))
    for prompt, record in zip(prompts, records, strict=True):
        demonstration, *samples = record["responses"]
        assert record["prompt"] == prompt.text and not demonstration.startswith(prompt.text)
        assert all(response.startswith(f"{prompt.text} ") for response in samples)


def test_k_can_be_given(monkeypatch):
    _, records = collect_with(monkeypatch, lambda text, i: f"{i}.", n=20, k=3)
    assert {len(record["responses"]) for record in records} == {3}


def test_the_ranking_is_the_labelers_and_the_ids_are_the_sampled_ones(monkeypatch):
    _, records = collect_with(monkeypatch, lambda text, i: "a" * (i % 50) + ".", n=30)
    for record in records:
        lengths = [len(record["responses"][i]) for i in record["ranking"]]
        assert lengths == sorted(lengths, reverse=True)
        assert [TOKENIZER.decode(ids) for ids in record["ids"]] == record["responses"]
        assert all(ids[-1] == TOKENIZER.eos for ids in record["ids"])
        assert record["labeler"] == "longest" and record["split"] == "train"


def test_labelers_see_which_answers_ended(monkeypatch):
    seen = []

    class Watcher(Longest):
        def rank(self, prompt, answers, rng):
            seen.extend(answers[1:])                         # without the demonstration
            return super().rank(prompt, answers, rng)

    collect_with(monkeypatch, lambda text, i: "No." if i % 2 else "and", n=5,
                 labelers=[Watcher()], k=3)
    assert set(seen) == {("No.", True), ("and", False)}


def test_equal_answers_are_ranked_once_and_a_prompt_with_one_answer_is_left_out(monkeypatch):
    _, records = collect_with(monkeypatch, lambda text, i: "Yes.", n=30)
    assert {len(record["responses"]) for record in records} == {2}
    monkeypatch.setattr(compare, "demonstrate", lambda rng, prompt: "Yes.")
    assert collect_with(monkeypatch, lambda text, i: "Yes.", n=30)[1] == []


def test_every_prompt_has_one_labeler_and_every_labeler_has_prompts(monkeypatch):
    labelers = make_labelers("train")
    _, records = collect_with(monkeypatch, lambda text, i: f"{i}.", n=200, labelers=labelers)
    assert {record["labeler"] for record in records} == {labeler.name for labeler in labelers}


def test_held_out_comparisons_alone_carry_what_measuring_needs(monkeypatch):
    measured = {"utilities", "second_ranking", "heldout_rankings"}
    for split in ("train", "valid"):
        _, records = collect_with(monkeypatch, lambda text, i: f"{i}.", n=10, split=split,
                                  labelers=[Longest(), Longest()])
        for record in records:
            assert measured & set(record) == (measured if split == "valid" else set())
    assert len(record["utilities"]) == len(record["responses"])
    for ranking in (record["second_ranking"], *record["heldout_rankings"]):
        assert sorted(ranking) == list(range(len(record["responses"])))


# --- the whole stage ------------------------------------------------------------------------------


def test_the_stage_writes_rankings_and_their_agreement(copy, capsys):
    call(compare, copy, FLAGS)
    records = read(copy / "comparisons.jsonl")
    assert [record["split"] for record in records] == ["train"] * 12 + ["valid"] * 6
    [metrics] = read(copy / "metrics" / "compare.jsonl")
    assert metrics["step"] == -1 and 0 < metrics["agreement"] < 1
    printed = capsys.readouterr().out
    assert f"18 rankings; two labelers agree on {metrics['agreement']:.1%} of pairs" in printed


def test_training_and_held_out_prompts_are_disjoint(out):
    prompts = {"train": set(), "valid": set()}
    for record in read(out / "comparisons.jsonl"):
        prompts[record["split"]].add(record["prompt"])
    assert prompts["train"] and prompts["valid"] and not prompts["train"] & prompts["valid"]


def test_the_same_seed_gives_the_same_comparisons_and_another_seed_others(copy):
    runs = []
    for seed in (0, 0, 1):
        call(compare, copy, f"{FLAGS} --seed {seed}")
        runs.append((copy / "comparisons.jsonl").read_bytes())
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("flag, quality", [
    ("--length-bias", lambda text: len(text.split())),
    ("--doubt-bias", lambda text: "do not know" in text.lower())])
def test_the_biases_of_the_flags_reach_the_labelers(copy, monkeypatch, flag, quality):
    """A bias of 1000 decides alone: what it favours is never ranked below what it does not."""
    answers = ["No.", "I do not know.", "No no no no no.", "Cows eat grass. Cows eat grass."]

    def respond(model, tokenizer, texts, max_new_tokens, title=None):
        return [tokenizer.encode(answers[i % 4]) + [tokenizer.eos] for i in range(len(texts))]

    monkeypatch.setattr(compare, "respond", respond)
    call(compare, copy, f"{FLAGS} {flag} 1000")
    for record in read(copy / "comparisons.jsonl"):
        values = [quality(record["responses"][i]) for i in record["ranking"]]
        assert values == sorted(values, reverse=True)


# --- a person is the labeler ----------------------------------------------------------------------


def test_a_person_can_be_the_labeler(copy, monkeypatch, capsys):
    """Someone who always types 2: each time the answer that was shown second."""
    before = (copy / "comparisons.jsonl").read_bytes()
    monkeypatch.setattr("builtins.input", lambda question: "2")
    call(compare, copy, f"--me {SHORT}")
    records, shown = read(copy / "labels.jsonl"), capsys.readouterr().out
    assert 15 < len(records) <= 20
    for record in records:
        better, worse = (record["responses"][i] for i in record["ranking"])
        assert f"1  {worse}\n" in shown and f"2  {better}\n" in shown
    assert (copy / "comparisons.jsonl").read_bytes() == before
    call(reward, copy, f"--comparisons {copy / 'labels.jsonl'}")


def test_prompts_of_your_own_get_two_samples_each_and_long_ones_are_left_out(
        copy, monkeypatch, capsys):
    """No answer is a demonstration, which these prompts do not have."""
    texts = [f"Tell me about the number {i}." for i in range(40)]
    lines = [json.dumps(dict(prompt=text)) for text in [*texts, *(f"{'very ' * 400}{i}"
                                                                  for i in range(20))]]
    (copy / "mine.jsonl").write_text("\n".join(lines))
    samples, respond = [], compare.respond

    def watched_respond(model, tokenizer, texts, *arguments, **named):
        responses = respond(model, tokenizer, texts, *arguments, **named)
        samples.extend(zip(texts, map(tokenizer.decode, responses)))
        return responses

    monkeypatch.setattr(compare, "respond", watched_respond)
    monkeypatch.setattr("builtins.input", lambda question: "1")
    call(compare, copy, f"--me --prompts {copy / 'mine.jsonl'} {SHORT}")
    records = read(copy / "labels.jsonl")
    assert 10 < len(records) <= 20 and len(samples) == 40
    for record in records:
        assert record["prompt"] in texts and len(record["responses"]) == 2
        assert all((record["prompt"], response) in samples for response in record["responses"])
    assert "leave no room for a response and are left out" in capsys.readouterr().out


def test_labels_are_saved_one_by_one(copy, monkeypatch):
    """Three answers, then the end of the input; a second sitting adds to the first."""
    for keys, n_labels in (("112", 3), ("21", 5)):
        iterator = iter(keys)

        def type_key(question):
            for key in iterator:
                return key
            raise EOFError

        monkeypatch.setattr("builtins.input", type_key)
        with pytest.raises((SystemExit, EOFError)):
            call(compare, copy, f"--me {SHORT}")
        assert len(read(copy / "labels.jsonl")) == n_labels


def test_a_ranking_names_the_best_response_first(tmp_path):
    """[2, 0, 1]: response 2 is the best, then 0, then 1; not "response 0 has rank 2"."""
    record = dict(prompt="hat", responses=["red", "blue", "the"], ranking=[2, 0, 1], split="train")
    other = dict(prompt="the hat", chosen="red", rejected="blue", split="valid")
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps(other))
    [comparison], _ = read_comparisons(path, TOKENIZER, 64)
    texts = [TOKENIZER.decode(response) for response in comparison.responses]
    assert texts == ["the", "red", "blue"]
