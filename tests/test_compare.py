"""Step 2a, asking people: what is ranked, by whom, and what is kept of it."""

import json
import random
import resource
import sys

import pytest
import tools               # before torch: it says how torch's threads wait
import torch

import compare
import reward
from compare import Config, agree, collect, keep_distinct
from conftest import call
from data import comparisons
from data.tokenizer import Tokenizer, train_ranks
from data.world.labelers import make_labelers
from data.world.text import make_prompts
from model import GPT, GPTConfig
from tools.checkpoints import save

TOKENIZER = Tokenizer(train_ranks("the red hat and the blue hat", 270))
FLAGS = "--device cpu --prompts 12 --heldout-prompts 6 --max-new-tokens 4"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A policy, tiny and random."""
    monkeypatch.setattr(sys, "argv", [])
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(TOKENIZER.vocab_size, 256, n_layer=1, n_head=2, n_embd=8))
    save(tmp_path / "sft.pt", gpt, gpt.config, TOKENIZER)
    return tmp_path


def read(out, name="comparisons"):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


class Longest:
    """Ranks by length, the longest first."""
    name = "longest"

    def rank(self, prompt, answers, rng):
        return sorted(range(len(answers)), key=lambda i: -len(answers[i][0]))


class Shortest:
    name = "shortest"

    def rank(self, prompt, answers, rng):
        return Longest().rank(prompt, answers, rng)[::-1]


# --- what is ranked -------------------------------------------------------------------------------


def collected(monkeypatch, answer_of, n=200, k=0, labelers=(Longest(),)):
    """Records of n prompts whose i-th sampled answer is answer_of(prompt's text, i)."""
    asked = []

    def respond(model, tokenizer, texts, max_new_tokens, bar):
        asked.extend(texts)
        return [tokenizer.encode(answer_of(text, i)) + [tokenizer.eos]
                for i, text in enumerate(texts)]
    monkeypatch.setattr(compare, "respond", respond)
    prompts = make_prompts(n, "train")
    return asked, prompts, list(collect(Config(), None, TOKENIZER, prompts, labelers, "train", k))


def test_k_is_drawn_from_4_to_9_and_one_of_them_is_a_labelers_demonstration(monkeypatch):
    """K - 1 answers are sampled for each prompt, all to that prompt."""
    asked, prompts, records = collected(monkeypatch, lambda text, i: f"{text} {i}")
    counts = [len(r["responses"]) for r in records]
    assert set(counts) == set(range(4, 10)) and len(asked) == sum(counts) - 200
    for prompt, r in zip(prompts, records, strict=True):
        demonstration, *sampled = r["responses"]
        assert r["prompt"] == prompt.text and not demonstration.startswith(prompt.text)
        assert all(response.startswith(f"{prompt.text} ") for response in sampled)
        assert len({response for response in sampled}) == len(sampled)


def test_k_can_be_given(monkeypatch):
    _, _, records = collected(monkeypatch, lambda text, i: f"{i}", n=20, k=3)
    assert {len(r["responses"]) for r in records} == {3}


def test_a_ranking_is_the_labelers_and_the_ids_are_those_that_were_sampled(monkeypatch):
    _, _, records = collected(monkeypatch, lambda text, i: "a" * (i % 50), n=30)
    for r in records:
        lengths = [len(r["responses"][i]) for i in r["ranking"]]
        assert lengths == sorted(lengths, reverse=True)
        assert sorted(r["ranking"]) == list(range(len(r["responses"])))
        assert [TOKENIZER.decode(ids) for ids in r["ids"]] == r["responses"]
        assert all(ids[-1] == TOKENIZER.eos for ids in r["ids"])
        assert r["labeler"] == "longest" and r["split"] == "train"


def test_a_labeler_knows_which_answers_never_ended(monkeypatch):
    seen = []

    class Watcher(Longest):
        def rank(self, prompt, answers, rng):
            seen.append(answers)
            return super().rank(prompt, answers, rng)
    monkeypatch.setattr(compare, "respond", lambda model, tokenizer, texts, *_, **__: [
        list(b"No") + [tokenizer.eos] if i % 2 else list(b"and") for i, _ in enumerate(texts)])
    list(collect(Config(), None, TOKENIZER, make_prompts(5, "train"), [Watcher()], "train", k=3))
    assert len(seen) == 5
    for answers in seen:
        assert {("No", True), ("and", False)} <= set(answers)


def test_equal_answers_are_ranked_once_and_a_prompt_with_one_answer_is_left_out(monkeypatch):
    _, _, records = collected(monkeypatch, lambda text, i: "Yes.", n=30)
    assert {len(r["responses"]) for r in records} == {2}
    monkeypatch.setattr(compare, "demonstrate", lambda rng, prompt: "Yes.")
    assert collected(monkeypatch, lambda text, i: "Yes.", n=30)[2] == []


def test_keep_distinct_keeps_the_first_of_each_in_order():
    assert keep_distinct([[1, 2], [3], [1, 2], [2, 1], [3]]) == [[1, 2], [3], [2, 1]]


def test_each_prompt_gets_one_labeler_and_all_labelers_get_prompts(monkeypatch):
    labelers = make_labelers("train")
    _, _, records = collected(monkeypatch, lambda text, i: f"{i}", labelers=labelers)
    assert {r["labeler"] for r in records} == {labeler.name for labeler in labelers}


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelers, share", [
    ([Longest(), Longest()], 1.0), ([Longest(), Shortest()], 0.0)])
def test_agreement_is_the_share_of_pairs_that_two_labelers_order_alike(labelers, share):
    """Records of prompts that are not known, as an experiment's own, are left out of it."""
    prompt = make_prompts(1, "train")[0]
    ids = [list(b"a"), list(b"bb"), list(b"cccc")]
    record = dict(prompt=prompt.text, responses=["a", "bb", "cccc"], ids=ids)
    other = record | dict(prompt="not of this world")
    assert agree(labelers, [record, other], {prompt.text: prompt}, TOKENIZER.eos) == share


# --- the whole stage ------------------------------------------------------------------------------


def test_the_stage_writes_rankings_its_agreement_and_one_line(folder, capsys):
    call(compare, folder, FLAGS)
    records = read(folder)
    assert [r["split"] for r in records] == ["train"] * 12 + ["valid"] * 6
    line, = read(folder, "metrics/compare")
    assert set(line) == {"step", "seconds", "agreement"} and line["step"] == -1
    assert 0 < line["agreement"] < 1 and line["seconds"] > 0
    assert capsys.readouterr().out == (
        f"{folder}/comparisons.jsonl: 18 rankings by 20 labelers, who agree on "
        f"{line['agreement']:.1%} of pairs, in {line['seconds']:.0f} s\n")
    assert not list(folder.glob("**/*.tmp"))


def test_training_prompts_and_held_out_ones_never_meet(folder):
    call(compare, folder, f"{FLAGS} --prompts 100 --heldout-prompts 100 --k 2")
    train, valid = ({r["prompt"] for r in read(folder) if r["split"] == split}
                    for split in ("train", "valid"))
    assert train and valid and not train & valid


def test_the_same_seed_gives_the_same_comparisons_and_another_seed_others(folder):
    runs = []
    for seed in (0, 0, 1):
        call(compare, folder, f"{FLAGS} --seed {seed}")
        runs.append((folder / "comparisons.jsonl").read_bytes())
    assert runs[0] == runs[1] != runs[2]


def test_other_labelers_and_further_records_can_be_brought_along(folder, monkeypatch):
    """One rank what is learned from, others what is held out; the records stand beside theirs."""
    more = [dict(prompt="the hat", responses=["red", "blue"], ranking=[1, 0], split="train",
                 ids=[TOKENIZER.encode(y) + [TOKENIZER.eos] for y in ("red", "blue")],
                 labeler="mine")]
    monkeypatch.setattr(sys, "argv", ["compare.py", "--out", str(folder), *FLAGS.split()])
    compare.main(None, [Longest(), Longest()], [Shortest()], more)
    records = read(folder)
    assert {r["labeler"] for r in records if r["split"] == "valid"} == {"shortest"}
    assert {r["labeler"] for r in records if r["split"] == "train"} == {"longest", "mine"}
    assert [r for r in records if r["labeler"] == "mine"] == more
    assert len(comparisons.read(folder / "comparisons.jsonl", TOKENIZER, 256)["train"]) == 13
    assert read(folder, "metrics/compare")[0]["agreement"] == 1


@pytest.mark.parametrize("bias, ours", [
    ("length", lambda p: len(p[0].split())), ("doubt", lambda p: "do not know" in p[0].lower())])
def test_the_biases_are_those_of_the_flags(folder, monkeypatch, bias, ours):
    """So strong a bias decides alone: what it likes is never ranked below what it does not."""
    rng = random.Random(0)
    answers = ["No.", "I do not know.", "No no no no no.", "Cows eat grass. Cows eat grass."]
    monkeypatch.setattr(compare, "respond", lambda model, tokenizer, texts, *_, **__: [
        tokenizer.encode(rng.choice(answers)) + [tokenizer.eos] for _ in texts])
    call(compare, folder, f"{FLAGS} --{bias}-bias 1000")
    for r in read(folder):
        values = [ours([r["responses"][i]]) for i in r["ranking"]]
        assert values == sorted(values, reverse=True)


def test_a_full_disk_leaves_the_old_comparisons(folder):
    call(compare, folder, FLAGS)
    before = (folder / "comparisons.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(SystemExit, match="comparisons.jsonl: could not be written"):
            call(compare, folder, f"{FLAGS} --seed 1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "comparisons.jsonl").read_bytes() == before
    assert not list(folder.glob("*.tmp"))


def test_prompts_of_ones_own_need_a_person(folder):
    (folder / "own.jsonl").write_text('{"prompt": "the hat"}\n')
    with pytest.raises(SystemExit, match="^error: --prompts with a file needs --me.*$"):
        call(compare, folder, f"--prompts {folder}/own.jsonl")
    assert not (folder / "comparisons.jsonl").exists()


# --- a person is the labeler ----------------------------------------------------------------------


def sit_down(monkeypatch, keys):
    """Somebody who types these keys and leaves."""
    keys = iter(keys)

    def press(question):
        if key := next(keys, None):
            return key
        raise EOFError
    monkeypatch.setattr("builtins.input", press)


def test_a_person_can_be_the_labeler(folder, monkeypatch):
    sit_down(monkeypatch, ["x", "1", "2", *"1" * 30])
    call(compare, folder, "--me --max-new-tokens 4")
    records = read(folder, "labels")
    assert 15 < len(records) <= 20 and {r["labeler"] for r in records} == {"person"}
    assert all(len(r["responses"]) == 2 for r in records)
    assert not (folder / "comparisons.jsonl").exists()
    call(reward, folder, f"--comparisons {folder / 'labels.jsonl'}")
    assert (folder / "reward.pt").is_file()


def test_what_a_person_prefers_is_what_stands_first(folder, monkeypatch, capsys):
    """Always the second key: each time the answer that was shown behind it."""
    sit_down(monkeypatch, "2" * 20)
    call(compare, folder, "--me --max-new-tokens 4")
    records = read(folder, "labels")
    shown = capsys.readouterr().out
    for r in records:
        better, worse = (r["responses"][i] for i in r["ranking"])
        assert f"  1  {worse}\n  2  {better}\n" in shown


def test_labels_survive_an_interrupt_which_speaks_of_no_resume(folder, monkeypatch, capsys):
    for keys, kept in ("112", 3), ("21", 5):
        sit_down(monkeypatch, keys)
        with pytest.raises(SystemExit) as end:
            call(compare, folder, "--me --max-new-tokens 4")
        assert end.value.code == 130
        assert len(read(folder, "labels")) == kept              # another sitting adds to the first
        assert "--resume" not in capsys.readouterr().err


def test_a_person_can_judge_answers_to_prompts_of_their_own(folder, monkeypatch):
    own = [f"the hat number {i}" for i in range(60)]
    (folder / "own.jsonl").write_text("".join(json.dumps(dict(prompt=p)) + "\n" for p in own))
    sit_down(monkeypatch, "1" * 30)
    call(compare, folder, f"--me --prompts {folder}/own.jsonl --max-new-tokens 4")
    assert {r["prompt"] for r in read(folder, "labels")} <= set(own)
