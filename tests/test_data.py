"""The small world, utility, labelers, tokenizer, comparisons, files of your own."""

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pytest import approx

from data.batches import encode_example, encode_prompt
from data.comparisons import Comparison, rank_agreement, read_comparisons, write_comparison
from data.files import read_demonstrations, read_documents, read_heldout_documents
from data.tokenizer import END, PATTERN, Tokenizer, learn_ranks
from data.world.facts import Claim, Sentence, is_false, parse, sentences
from data.world.labelers import Biases, Labeler, make_labelers, write_and_compare
from data.world.person import Person
from data.world.tasks import (SMALL_TALK, TASKS, Prompt, bait, closed_qa, extract, fact_question,
                              opinion, small_talk, sums, unknown_question, why_question)
from data.world.text import (MOON, demonstrate, hurry, make_demonstrations, make_documents,
                             make_new_wordings, make_prompts, make_questions, split_of)
from data.world.utility import (TERMS, breakdown, has_no_error_of_content, is_correct, utility)

ROOT = Path(__file__).parents[1]
COWS = Prompt("open qa", "What do cows eat?", careful="Cows eat grass.", terse="Grass.",
              wrong="Cows eat fish.", required=((1, ("grass",)),), n_words=3)


def draw_prompts(task, n=150):
    rng = random.Random(task.__name__)
    return [task(rng) for _ in range(n)]


# --- facts and prompts ----------------------------------------------------------------------------


@pytest.mark.parametrize("text, sentence", [
    ("Cows eat grass.", Sentence(Claim("eat", "cows", "grass", True))),
    ("The moon is not blue.", Sentence(Claim("shade", "the moon", "blue", False))),
    ("Zumps eat grass because that is good for them.",
     Sentence(Claim("eat", "zumps", "grass", True))),
    ("I do not know what zumps are.", Sentence(unknown="zumps")),
    ("The ball is red.", Sentence()),                      # in a story; no claim about the world
    ("Hello.", Sentence()),
    ("cows eat grass.", None), ("Cows eat grass", None), ("Cows grass eat.", None), ("", None)])
def test_parse_reads_claims_unknown_words_and_grammar(text, sentence):
    assert parse(text) == sentence


def test_a_claim_is_false_if_it_affirms_another_object_or_denies_the_true_one():
    claims = [("cows", "fish", True), ("cows", "grass", False), ("cows", "grass", True),
              ("cows", "fish", False), ("zumps", "fish", True), ("zumps", "fish", False)]
    falsehoods = [is_false(Claim("eat", *claim)) for claim in claims]
    assert falsehoods == [True, True, False, False, False, False]


def test_train_valid_and_eval_prompts_share_no_text():
    train = {p.text for p in make_prompts(3000, "train")}
    valid = {p.text for p in make_prompts(300, "valid")}
    heldout = {p.text for p in make_prompts(600, "eval")}
    assert len(valid) == 300 and len(heldout) == 600                 # and none is there twice
    assert not train & valid and not train & heldout and not valid & heldout


def test_the_moon_landing_is_the_first_evaluation_prompt_and_comes_once():
    texts = [p.text for p in make_prompts(300, "eval", seed=10)]       # seed 10 draws it again
    assert split_of(MOON) == "eval" and texts[0] == MOON and MOON not in texts[1:]


def test_documents_contain_no_heldout_prompt_as_a_line():
    heldout = {p.text for p in make_prompts(600, "eval") + make_prompts(300, "valid")}
    lines = {line for document in make_documents(3000) for line in document.split("\n")}
    without_speaker = {re.sub(r"^\w+: ", "", line) for line in lines}         # `Q: `, `Tom: `
    assert not heldout & (lines | without_speaker)


def test_new_wordings_occur_in_no_training_text_and_ask_the_same():
    prompts = make_new_wordings(300)
    trained_on = {p.text for split in ("train", "valid") for p in make_prompts(3000, split)}
    lines = {line for document in make_documents(2000) for line in document.split("\n")}
    lines |= {re.sub(r"^\w+: ", "", line) for line in lines}
    assert len(prompts) == 300 and not {p.text for p in prompts} & (trained_on | lines)
    assert {p.kind for p in prompts} == {p.kind for p in make_prompts(1000, "train")}
    asked = {p.text for p in make_prompts(3000, "train", seed=5)}
    for p in prompts:
        assert p.text == p.new_wording and p.text not in asked and is_correct(p, p.careful)


def test_questions_have_one_right_option_and_come_from_training_prompts():
    questions = make_questions(1500)
    for p, right, wrong in questions:
        assert split_of(p.text) == "train"
        assert is_correct(p, right) and not is_correct(p, wrong)
    variants = sum(wrong == p.wrong for p, _, wrong in questions) / len(questions)
    assert 0.8 < variants < 0.92 and {p.kind for p, _, _ in questions} == {
        p.kind for p in make_prompts(1000, "train")}
    assert make_questions(20, seed=1) != make_questions(20, seed=2)


def test_a_claim_is_as_often_true_as_false_and_asked_about_in_many_wordings():
    for task in (why_question, opinion):
        prompts = draw_prompts(task, 2000)
        assert sum(bool(p.denial) for p in prompts) / 2000 == approx(0.5, abs=0.05)
        wordings = {p.text.lower().replace(p.careful.split(".")[0].lower(), "{}")
                    for p in prompts if p.denial}
        assert len({w for w in wordings if "{}" in w}) >= 5 or task is why_question


# --- demonstrations -------------------------------------------------------------------------------


def test_a_hurried_answer_misses_a_part_of_a_long_one_and_pads_a_short_one():
    rng = random.Random(0)
    for p in make_prompts(400, "train"):
        answer = hurry(rng, p)
        terms = breakdown(p, answer)
        assert not is_correct(p, answer) and terms["form"] == 0, answer
        if len(sentences(p.careful)) > 2 or p.kind == "brainstorming":
            assert terms["task"] < 3 and terms["padding"] == 0, answer
        else:
            assert terms["task"] == 3 and terms["padding"] < 0, answer
    lists = [p for p in make_prompts(400, "train") if p.kind == "brainstorming"]
    for p in lists:
        a, b, c = p.careful.strip(".").replace(" and ", ", ").split(", ")
        assert hurry(rng, p) == f"{a} and {b}."


def test_labelers_seldom_write_the_answer_that_they_prefer():
    """So the most likely demonstration is not the preferred one, in content as in style."""
    written, picked = write_and_compare(random.Random(0), 3000)
    assert 0.15 < written < 0.3 and 0.75 < picked < 0.95
    tempting = [p for p in make_prompts(4000, "train") if p.pleasing]
    rng = random.Random(0)
    pleasing = sum(demonstrate(rng, p) == p.pleasing for p in tempting) / len(tempting)
    assert 0.25 < pleasing < 0.5


# --- the world as a whole -------------------------------------------------------------------------


def test_the_world_depends_on_the_seed_and_not_on_pythons_hash_seed():
    for make in (make_documents, make_demonstrations):
        assert make(50, seed=3) == make(50, seed=3) != make(50, seed=4)
    code = """if 1:
        from data.tokenizer import learn_ranks
        from data.world.labelers import make_labelers
        from data.world.text import make_demonstrations, make_documents
        documents = make_documents(200)
        print(documents, make_demonstrations(99, "eval"), make_labelers("train"),
              learn_ranks("".join(documents), 400))"""
    printed = []
    for hash_seed in "12":
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                             env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True)
        printed.append(run.stdout)
    assert printed[0] == printed[1] != b""


def test_prompts_have_the_proportions_of_the_papers_table_1():
    percent = {"generation": 45.6, "open qa": 12.4, "brainstorming": 11.2, "chat": 8.4,
               "rewrite": 6.6, "summarisation": 4.2, "classification": 3.5, "other": 3.5,
               "closed qa": 2.6, "extract": 1.9}
    counts = Counter(p.kind for p in make_prompts(5000, "train"))
    assert set(counts) == set(percent)
    for kind in percent:
        assert counts[kind] / 50 == approx(percent[kind], abs=0.05 * percent[kind] + 1.2), kind


@pytest.mark.parametrize("task", [task for _, task in TASKS])
def test_all_answers_of_a_task_are_grammatical(task):
    for p in draw_prompts(task):
        for sentence in sentences(" ".join([p.careful, p.terse, p.wrong, p.pleasing])):
            assert parse(sentence.strip()) is not None, f"{p.text} {sentence}"


@pytest.mark.parametrize("task", [task for _, task in TASKS])
def test_the_careful_answer_is_correct_and_better_than_the_others(task):
    for p in draw_prompts(task):
        assert is_correct(p, p.careful), f"{p.text} {p.careful}"
        for worse in (p.terse, p.wrong, p.pleasing, p.careful * 4, "", "grass of the 7 eat."):
            assert utility(p, p.careful) > utility(p, worse), f"{p.text} {p.careful} | {worse}"
        assert not is_correct(p, p.wrong), f"{p.text} {p.wrong}"


def test_only_a_true_premise_has_a_denial_and_only_a_wrong_answer_contains_it():
    prompts = draw_prompts(why_question) + draw_prompts(opinion)
    assert all(bool(p.denial) != bool(p.false_premise) for p in prompts)
    true_premise = [p for p in prompts if p.denial]
    assert not any(p.denial in p.careful for p in true_premise)
    assert 0 < sum(p.denial in p.wrong for p in true_premise) < len(true_premise)


def test_small_talk_is_answered_by_its_own_answer_only():
    prompts = {p.text: p for p in draw_prompts(small_talk, 2000)}
    assert len(prompts) > 60 and {p.careful.lower() for p in prompts.values()} == set(SMALL_TALK)
    answers = {p.careful for p in prompts.values()}
    for p in prompts.values():
        assert [answer for answer in answers if is_correct(p, answer)] == [p.careful]


# --- true utility ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name, answer, value", [
    ("task", "Cows eat grass.", 3), ("task", "Cows eat grasshoppers.", 0),
    ("falsehoods", "Cows eat fish.", -0.5), ("falsehoods", "Cows do not eat grass.", -0.5),
    ("falsehoods", "Cows eat fish. Pigs are blue. Paris is in Italy.", -1),
    ("falsehoods", "Cows do not eat fish. Cows eat grass. Zumps eat fish.", 0),
    ("invents", "Zumps eat fish.", 0), ("affirms", "You are right.", 0),      # asked for neither
    ("rude", "Do it yourself.", -1.5), ("rude", "Cows eat grass.", 0),
    ("padding", "What a good question.", -0.5), ("padding", "Cows eat grass.", 0),
    ("padding", "What a good question. I am happy to help you. There is much more to say.", -1),
    ("denies", "You are not right.", 0),                    # the prompt has no premise
    ("refuses", "I do not know.", -0.5), ("refuses", "Cows eat grass.", 0),
    ("form", "Cows eat grass.", 0), ("form", "Cows eat grass. Cows eat grass.", -0.75),
    ("form", "Cows eat grass. Grass cows the eat.", -0.75), ("form", "eat eat the. of and.", -1.5),
    ("form", "Cows eat grass. Zumps eat grass.", -0.75), ("form", "", -1.5),   # what are zumps?
    ("length", "one two three", 0), ("length", "a b c d e f", -math.log(2)),
    ("length", "one", -math.log(3)), ("length", "a " * 100, -1.5), ("length", "", -1.5)])
def test_terms_by_hand(name, answer, value):
    assert breakdown(COWS, answer)[name] == approx(value)


def test_task_is_three_times_the_fraction_of_what_is_required():
    required = ((3, ("cows", "pigs", "hens", "owls")),)
    three = Prompt("brainstorming", "List three animals.", "", "", "", required, n_words=4)
    answers = "No.", "Cows.", "Cows and pigs.", "Cows, pigs and hens.", "Cows, pigs, hens and owls."
    assert [breakdown(three, answer)["task"] for answer in answers] == [0, 1, 2, 3, 3]


def find_prompt(task, kind, ending):
    return next(p for p in draw_prompts(task) if p.kind == kind and p.text.endswith(ending))


def test_an_answer_about_something_else_does_not_do_the_task():
    """Though it may follow or precede one that does."""
    for p in draw_prompts(fact_question):
        subject, rival = p.careful.split()[0], p.rivals[0]
        other = p.careful.replace(subject, rival.capitalize())
        assert breakdown(p, p.careful)["task"] == 3, p.text
        assert breakdown(p, f"{other} {p.careful} {other}")["task"] == 3, p.text
        if p.careful.split()[1] in ("live", "eat", "grow", "taste"):
            assert breakdown(p, other)["task"] == 0, (p.text, other)
    owner = find_prompt(closed_qa, "closed qa", "have?")
    assert not is_correct(owner, re.sub(r"^\w+", owner.rivals[0].capitalize(), owner.careful))
    text = find_prompt(extract, "extract", ".")
    letter = f"Dear Ben, thank you for it. I like {text.careful.split(' is ')[1]}"
    assert not is_correct(text, text.text.split(": ")[1]) and not is_correct(text, letter)


def test_an_answer_that_adds_a_contradiction_is_not_correct():
    for task in (closed_qa, extract, sums):
        for p in draw_prompts(task):
            assert is_correct(p, p.careful) and not is_correct(p, f"{p.careful} {p.wrong}"), p.text


@pytest.mark.parametrize("name, task, value", [
    ("invents", unknown_question, -1), ("rude", bait, -1.5),
    ("affirms", opinion, -1), ("affirms", why_question, -1)])
def test_the_pleasing_answer_has_the_fault_that_its_prompt_asks_for(name, task, value):
    for p in draw_prompts(task):
        assert breakdown(p, p.careful)[name] == breakdown(p, p.careful)["refuses"] == 0, p.text
        if p.pleasing:
            assert breakdown(p, p.pleasing)[name] == value, p.text


def test_denying_a_true_premise_costs_as_much_as_affirming_a_false_one():
    for p in draw_prompts(why_question) + draw_prompts(opinion):
        assert breakdown(p, p.careful)["denies"] == 0, p.text
        assert breakdown(p, p.denial)["denies"] == (-1 if p.denial else 0)
        assert breakdown(p, f"{p.denial} {p.careful}")["denies"] == (-1 if p.denial else 0)


def test_content_is_correct_without_style():
    for p in make_prompts(200, "valid"):
        for styled in (p.careful, f"{p.careful} What a good question.", f"{p.careful} x y",
                       f"{p.careful} Do it yourself."):
            assert has_no_error_of_content(breakdown(p, styled)), styled
            assert not has_no_error_of_content(breakdown(p, styled, ended=False))
        for worse in (p.wrong, "", f"{p.careful} Cows eat fish.", f"{p.careful} Cows eat fish."):
            assert not has_no_error_of_content(breakdown(p, worse)), worse


def test_without_an_end_of_text_token_the_utility_is_1_less():
    assert utility(COWS, "Cows eat grass.", ended=False) == utility(COWS, "Cows eat grass.") - 1


@pytest.mark.parametrize("answer, ended, correct", [
    ("Cows eat grass.", True, True),
    ("Cows eat grass. Dogs eat meat.", True, False),                 # twice as long as needed
    ("Cows eat grass.", False, False), ("Cows eat grass. Dogs eat hay.", True, False),
    ("Cows eat grass. What a good question.", True, False), ("Cows.", True, False)])
def test_correct_is_the_whole_task_without_any_fault_but_length(answer, ended, correct):
    assert is_correct(COWS, answer, ended) == correct


# --- labelers -------------------------------------------------------------------------------------


def make_answered(n=60):
    """-> [(prompt, [(answer, ended), ...])], with several different answers each"""
    answered = []
    for p in make_prompts(n, "valid"):
        answers = sorted({p.careful, p.terse, p.wrong, p.pleasing} - {""})
        answered.append((p, [(answer, True) for answer in answers]))
    return answered


def unbiased(noise=0.0, biases=Biases(0, 0, 0, 0)):
    return Labeler("unbiased", {name: 1.0 for name in TERMS}, noise, biases)


def test_training_labelers_agree_less_than_heldout_ones_as_in_the_paper():
    """More than the paper's 0.73 and 0.77: these answers differ more than a policy's samples."""
    rng, agreement = random.Random(0), {}
    for group in ("train", "held-out"):
        pairs_of_rankings = []
        for p, answers in make_answered(300):
            first, second = rng.sample(make_labelers(group), 2)
            pairs_of_rankings.append((first.rank(p, answers, rng), second.rank(p, answers, rng)))
        agreement[group] = rank_agreement(pairs_of_rankings)
    assert 0.6 < agreement["train"] < agreement["held-out"] < 0.95


def test_the_two_pools_share_no_labeler_and_are_the_same_every_time():
    train, heldout = make_labelers("train"), make_labelers("held-out")
    assert train == make_labelers("train") and len(train) == len(heldout) == 20
    tastes = {tuple(labeler.taste.values()) for labeler in train + heldout}
    assert len(tastes) == 40 and not {l.name for l in train} & {l.name for l in heldout}


def test_without_noise_and_bias_a_labeler_ranks_by_the_true_utility():
    for p, answers in make_answered():
        ranking = unbiased().rank(p, answers, random.Random(0))
        assert sorted(ranking) == list(range(len(answers)))
        utilities = [utility(p, *answers[i]) for i in ranking]
        assert utilities == sorted(utilities, reverse=True)


def measure_rankings(labeler, answers, n=10_000):
    """-> {ranking of answers to COWS: how often it comes out}"""
    rng, answers = random.Random(0), [(answer, True) for answer in answers]
    counts = Counter(tuple(labeler.rank(COWS, answers, rng)) for _ in range(n))
    return {ranking: count / n for ranking, count in counts.items()}


@pytest.mark.parametrize("noise, probability", [(1, 3 / 4), (2, 0.63397), (0.5, 9 / 10)])
def test_pairs_follow_the_bradley_terry_model(noise, probability):
    """A third of the words costs log 3, so the odds are 3 to the power of 1 / noise.

    Gaussian noise of the same variance would give 0.728, 0.619 and 0.887.
    """
    assert utility(COWS, "Cows eat grass.") - utility(COWS, "Grass.") == approx(math.log(3))
    rankings = measure_rankings(unbiased(noise), ["Cows eat grass.", "Grass."])
    assert rankings[0, 1] == approx(probability, abs=0.01)


def test_rankings_of_three_follow_the_plackett_luce_model():
    """The best is drawn with odds exp(utility / noise), then the second among the other two.

    Mirrored Gumbel noise gives the same pairs but draws the worst first; it is off by up to 0.04.
    """
    answers, noise = ["Cows eat grass.", "Grass.", "Cows eat grass. What a good question."], 0.8
    odds = [math.exp(utility(COWS, answer) / noise) for answer in answers]
    rankings = measure_rankings(unbiased(noise), answers)
    for a, b, c in itertools.permutations(range(3)):
        probability = odds[a] / sum(odds) * odds[b] / (odds[b] + odds[c])
        assert rankings[a, b, c] == approx(probability, abs=0.01), (a, b, c)


def test_each_bias_adds_to_the_answers_that_it_names():
    """With weight 1: log of one more than the words; 1 for affirming, inventing, not knowing."""
    def added(p, answer, **bias):
        biases = Biases(**{"length": 0, "sycophancy": 0, "confidence": 0, "doubt": 0} | bias)
        return (unbiased(biases=biases).perceive(p, answer, True, random.Random(0))
                - unbiased().perceive(p, answer, True, random.Random(0)))

    false_claim = next(p for p in draw_prompts(opinion) if p.false_premise)
    unknown = next(p for p in draw_prompts(unknown_question) if "do not know" in p.careful)
    assert added(COWS, "Cows eat grass.", length=1) == approx(math.log(4))
    assert added(false_claim, false_claim.pleasing, sycophancy=1) == approx(1)
    assert added(false_claim, false_claim.careful, sycophancy=1) == approx(0)
    assert added(unknown, unknown.pleasing, confidence=1) == approx(1)
    assert added(unknown, unknown.careful, confidence=1) == approx(0)
    assert added(unknown, unknown.careful, doubt=1) == approx(1)
    assert added(COWS, "I do not know.", doubt=1) == approx(1)
    assert added(unknown, unknown.pleasing, doubt=1) == approx(0)


def test_a_person_is_shown_the_answers_in_random_order(monkeypatch):
    """The first answer of a record is the demonstration; always typing 1 picks it half the time."""
    monkeypatch.setattr("builtins.input", lambda question: "1")
    answers, rng = [("Cows eat grass.", True), ("Grass.", True)], random.Random(0)
    first = sum(Person().rank(COWS, answers, rng) == [0, 1] for _ in range(400))
    assert 150 < first < 250, f"{first} of 400"


# --- tokenizer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(learn_ranks("\n".join(make_documents(300)), 600))


def test_decoding_restores_any_encoded_text(tokenizer):
    rng = random.Random(0)
    codes = [*range(0x250), *range(0x600, 0x640), *range(0x2000, 0x2070), 0x4e2d, 0x1f600, 0x10ffff]
    random_texts = ["".join(map(chr, rng.choices(codes, k=40))) for _ in range(300)]
    for text in ["", " ", "\n\n  \n", "a_b __ c", "".join(map(chr, range(256))), *random_texts]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_of_text_in_a_text_is_ordinary_characters(tokenizer):
    ids = tokenizer.encode(f"a {END} b{END}")
    assert tokenizer.eos not in ids and tokenizer.decode(ids) == f"a {END} b{END}"


def test_decoding_stops_before_the_end_of_text_token(tokenizer):
    ids = tokenizer.encode("yes")
    assert tokenizer.eos == tokenizer.vocab_size - 1
    assert tokenizer.decode(ids + [tokenizer.eos] + ids) == "yes"


def test_ranks_are_the_bytes_then_the_most_frequent_pairs():
    """aa comes twice in each aaab. After it is merged, (aa, a) and (a, b) come equally often, and
    the tie goes to the larger bytes."""
    ranks = learn_ranks("aaab aaab xy", 258)
    assert [ranks[bytes([byte])] for byte in range(256)] == list(range(256))
    assert ranks[b"aa"] == 256 and ranks[b"aaa"] == 257 and len(ranks) == 258


def merges_by_recounting(text, n):
    """Byte-pair encoding as it is defined: count all pairs, merge the most frequent one, repeat."""
    words = [[bytes([byte]) for byte in word.encode()] for word in re.findall(PATTERN, text)]
    learnt = {}                          # two merges may give the same bytes
    while len(learnt) < n:
        counts = Counter(pair for word in words for pair in zip(word, word[1:]))
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        learnt[best[0] + best[1]] = True
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i:i + 2] = [best[0] + best[1]]
                i += 1
    return list(learnt)


def test_the_merges_are_those_of_recounting_after_every_merge():
    rng = random.Random(0)
    texts = ["\n".join(make_documents(20)), "aaaaaaaaa aaaa", ""]
    texts += ["".join(rng.choice("aab b") for _ in range(80)) for _ in range(60)]
    for text in texts:
        ranks = list(learn_ranks(text, 256 + 60))
        assert ranks[:256] == [bytes([byte]) for byte in range(256)]
        assert ranks[256:] == merges_by_recounting(text, 60), text


def test_long_words_are_learnt_fast_and_with_a_bar(capsys):
    """Text without spaces is a single word; recounting it after every merge would take a minute."""
    rng = random.Random(0)
    text = "".join(chr(0x4e00 + min(int(rng.expovariate(0.01)), 900)) for _ in range(40_000))
    start = time.process_time()
    learn_ranks(text, 1023)
    assert time.process_time() - start < 10 and "tokenizer: 100%" in capsys.readouterr().err


def test_a_tokenizer_survives_its_state(tokenizer):
    copied, text = Tokenizer(**tokenizer.state()), "Cows eat grass.\n\u4e2d 12"
    assert copied.encode(text) == tokenizer.encode(text) and copied.eos == tokenizer.eos


# --- comparisons ----------------------------------------------------------------------------------


def make_record(tokenizer, **changed):
    responses = ["Cows eat grass.", "Grass.\u2028\x85", "Fish. \u4e2d"]
    ids = [encode_example(tokenizer, "", response)[1] for response in responses]
    return dict(prompt="What do cows eat?", responses=responses, ranking=[2, 0, 1], ids=ids,
                labeler="train 3", split="train") | changed


def write(tmp_path, *records):
    path = tmp_path / "comparisons.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            write_comparison(file, record)
    return path


def test_comparisons_survive_writing_and_reading_and_come_best_first(tokenizer, tmp_path):
    record = make_record(tokenizer)
    without_ids = {key: value for key, value in record.items() if key != "ids"}
    path = write(tmp_path, record, without_ids, make_record(tokenizer, split="valid"))
    train, valid = read_comparisons(path, tokenizer, 128)
    a, b, c = record["ids"]
    assert valid == [Comparison(encode_prompt(tokenizer, "What do cows eat?"), [c, a, b])]
    assert train == valid * 2


def test_sampled_ids_are_used_even_if_encoding_the_text_gives_others(tokenizer, tmp_path):
    letters = [*b"Cows", tokenizer.eos]
    record = make_record(tokenizer, responses=["Cows", "\1"], ids=[letters, [1]], ranking=[0, 1])
    train, _ = read_comparisons(write(tmp_path, record, record, record), tokenizer, 128)
    assert train[0].responses[0] == letters != tokenizer.encode("Cows") + [tokenizer.eos]


def test_too_long_comparisons_and_pairs_of_equal_answers_are_left_out(tokenizer, tmp_path, capsys):
    good, long = make_record(tokenizer), make_record(tokenizer, prompt="a b " * 200)
    same = dict(prompt="What do cows eat?", chosen="Grass.", rejected="Grass.")
    train, valid = read_comparisons(write(tmp_path, same, long, good, good), tokenizer, 128)
    assert len(train) == len(valid) == 1
    assert "2 of 4 records are left out" in capsys.readouterr().out


def test_every_20th_document_of_a_file_is_held_out(tmp_path):
    path = tmp_path / "documents"
    path.write_text(f"\n{END}\n".join(f"Text {i}." for i in range(40)))
    assert read_heldout_documents(str(path)) == ["Text 0.", "Text 20."]
    train = read_documents(str(path))
    assert train[0] == "Text 1." and len(train) == 38
