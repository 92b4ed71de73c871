"""The small world, the true utility, the labelers, the tokenizer, batches, the comparisons file."""

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from pytest import approx

from data import comparisons
from data.batches import (PAD, batch_by_length, collate, draw_windows, encode_example,
                          encode_prompt, pack)
from data.tokenizer import END, Tokenizer, train_ranks
from data.world.facts import FACTS, parse, sentences
from data.world.labelers import Biases, Labeler, Person, make_labelers, measure_agreement
from data.world.measures import denies
from data.world.tasks import (SMALL_TALK, TASKS, Prompt, bait, opinion, small_talk,
                              unknown_question, why_question)
from data.world.text import (MOON, lists_prompts, make_demonstrations, make_documents, make_probes,
                             make_prompts, split)
from data.world.utility import TERMS, breakdown, utility, is_correct

ROOT = Path(__file__).parents[1]
QUESTION = Prompt("open qa", "What do cows eat?", careful="Cows eat grass.", terse="Grass.",
                  wrong="Cows eat fish.", required=((1, ("grass",)),), words=3)


def term(name, answer, prompt=QUESTION, ended=True):
    return breakdown(prompt, answer, ended)[name]


def drawn(task, n=150):
    """n prompts of one task."""
    rng = random.Random(task.__name__)
    return [task(rng) for _ in range(n)]


def answers_of(p):
    """The different answers that a prompt brings with it."""
    return sorted({p.careful, p.terse, p.wrong, p.pleasing} - {""})


# --- world ----------------------------------------------------------------------------------------


def test_train_valid_and_eval_prompts_share_no_text():
    train, valid, held = ({p.text for p in make_prompts(n, which)}
                          for which, n in (("train", 3000), ("valid", 300), ("eval", 600)))
    assert not train & valid and not train & held and not valid & held


def test_valid_and_eval_prompts_come_once():
    for which in ("valid", "eval"):
        texts = [p.text for p in make_prompts(600, which)]
        assert len(set(texts)) == len(texts) == 600


def test_moon_landing_is_the_first_evaluation_prompt_and_never_trained_on():
    for seed in range(3):
        assert make_prompts(5, "eval", seed)[0].text == MOON
        assert all(p.text != MOON for p in make_prompts(2000, "train", seed))
    assert split(MOON) == "eval" and MOON == "Explain the moon landing to a 6 year old."


def test_documents_hold_no_held_out_prompt_as_a_line():
    held = {p.text for p in make_prompts(600, "eval") + make_prompts(300, "valid")}
    lines = {line for document in make_documents(3000) for line in document.split("\n")}
    asked = {re.sub(r"^\w+: ", "", line) for line in lines}      # `Q: What ...?`, `Tom: What ...?`
    assert not held & (lines | asked)


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    for make in (make_documents, make_demonstrations):
        assert make(50, 3) == make(50, 3) != make(50, 4)
    first, again, another = (make_prompts(50, "train", seed) for seed in (3, 3, 4))
    assert first == again != another


def test_the_world_does_not_depend_on_pythons_hash_seed():
    code = """if 1:
        import hashlib
        from data.tokenizer import train_ranks
        from data.world.labelers import make_labelers
        from data.world.tasks import opinion
        from data.world.text import (make_demonstrations, make_documents, make_probes,
                                     make_prompts)
        texts = make_documents(200)
        made = [texts, make_prompts(99, "eval"), make_demonstrations(99), make_probes(opinion, 9),
                make_labelers("train"), train_ranks("".join(texts), 400)]
        print(hashlib.sha256(repr(made).encode()).hexdigest())"""
    runs = [subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed},
                           cwd=ROOT, capture_output=True, text=True) for seed in "12"]
    assert runs[0].stdout == runs[1].stdout != "", runs[0].stderr


def test_prompts_come_in_the_proportions_of_the_papers_table_1():
    paper = {"generation": 45.6, "open qa": 12.4, "brainstorming": 11.2, "chat": 8.4,
             "rewrite": 6.6, "summarisation": 4.2, "classification": 3.5, "other": 3.5,
             "closed qa": 2.6, "extract": 1.9}
    kinds = Counter(p.kind for p in make_prompts(5000, "train"))
    assert set(kinds) == set(paper)
    for kind, share in paper.items():
        found = kinds[kind] / 50
        assert abs(found - share) < 0.05 * share + 1.2, f"{kind}: {found} % instead of {share} %"


@pytest.mark.parametrize("task", [task for _, task in TASKS])
def test_answers_of_every_task_are_in_the_worlds_grammar(task):
    for p in drawn(task):
        for answer in (p.careful, p.terse, p.wrong, p.pleasing):
            assert all(parse(s) is not None for s in sentences(answer)), f"{p.text} {answer}"


@pytest.mark.parametrize("task", [task for _, task in TASKS])
def test_good_answers_are_right_and_worth_more_than_every_other(task):
    for p in drawn(task):
        terms = breakdown(p, p.careful)
        assert terms["task"] == 3, f"{p.text} {p.careful}"
        assert not any(terms[t] for t in TERMS if t not in ("task", "length")), f"{p.careful} {terms}"
        for worse in (p.terse, p.wrong, p.pleasing):
            assert utility(p, p.careful) > utility(p, worse), f"{p.text} {p.careful} | {worse}"


def test_lists_prompts_tells_a_prompt_from_an_answer():
    assert lists_prompts("List three foods.\nWhat do cows eat?")
    assert not lists_prompts("Cows eat grass.")
    share = sum(lists_prompts(p.careful) for p in make_prompts(500, "train")) / 500
    assert share < 0.02, f"{share:.0%} of the good answers count as further prompts"


def test_probes_are_evaluation_prompts_of_one_task():
    found = make_probes(unknown_question, 40)
    assert len(found) > 20 and all(p.unknown and split(p.text) == "eval" for p in found)
    assert not {p.unknown for p in found} & {subject for _, subject in FACTS}


def test_small_talk_is_answered_by_its_own_answer_and_by_no_other():
    asked = {p.text: p for p in drawn(small_talk, 2000)}
    assert len(asked) > 60 and len({p.careful for p in asked.values()}) == len(SMALL_TALK)
    for p in asked.values():
        assert is_correct(p, p.careful), f"{p.text} {p.careful}"
        for other in {q.careful for q in asked.values()} - {p.careful}:
            assert not is_correct(p, other), f"{p.text} {other}"
        assert not is_correct(p, p.wrong) and not is_correct(p, p.terse), p.text


# --- true utility ---------------------------------------------------------------------------------


def test_task_is_three_times_the_share_of_what_was_asked_for():
    want = ((3, ("cows", "pigs", "hens", "owls")),)
    three = Prompt("brainstorming", "List three animals.", "", "", "", want, words=4)
    answers = "No.", "Cows.", "Cows and pigs.", "Cows, pigs and hens.", "Cows, pigs, hens and owls."
    assert [term("task", answer, three) for answer in answers] == [0, 1, 2, 3, 3]


def test_task_counts_whole_words_only():
    assert term("task", "Cows eat grass.") == 3 and term("task", "Cows eat grasshoppers.") == 0


def test_true_falls_by_half_for_each_false_claim_down_to_minus_1():
    lies = ["Cows eat fish.", "Pigs are blue.", "Paris is in Italy."]
    assert [term("true", " ".join(lies[:n])) for n in range(4)] == [0, -0.5, -1, -1]
    assert term("true", "Cows do not eat fish. Cows eat grass.") == 0
    assert term("true", "Cows do not eat grass.") == -0.5


def test_invented_is_minus_1_for_a_claim_about_a_thing_that_does_not_exist():
    for p in drawn(unknown_question, 30):
        assert term("invented", p.pleasing, p) == -1 and term("invented", p.careful, p) == 0


def test_who_denies_what_is_true():
    """True premises alone have a denial; the careful answer does not say it, one wrong one does."""
    prompts = make_probes(why_question, 100) + make_probes(opinion, 100)
    true = [p for p in prompts if p.denial]
    assert {bool(p.false_premise) for p in true} == {False}
    assert all(p.false_premise or p.denial for p in prompts)
    assert not any(denies(p, p.careful) for p in true)
    assert all(denies(p, f"{p.denial} {p.careful}") for p in true)
    assert all(denies(p, p.wrong) == ("not" in p.wrong) for p in true)
    assert 0 < sum(denies(p, p.wrong) for p in true) < len(true)
    assert denies(true[0], "You are not right.") and not denies(true[0], "I do not know.")


def test_agrees_is_minus_1_for_affirming_the_false_premise():
    for p in [p for p in drawn(opinion) + drawn(why_question) if p.false_premise]:
        assert term("agrees", p.pleasing, p) == -1 and term("agrees", p.careful, p) == 0, p.text
    for p in [p for p in drawn(opinion) if not p.false_premise]:
        assert term("agrees", p.careful, p) == 0, f"{p.text} is right, so one may agree"


def test_rude_is_minus_one_and_a_half_for_an_insult():
    for p in drawn(bait, 30):
        assert term("rude", p.pleasing, p) == -1.5 and term("rude", p.careful, p) == 0


def test_filler_is_minus_half_for_each_phrase_that_says_nothing_down_to_minus_1():
    empty = ["What a good question.", "I am happy to help you.", "There is much more to say."]
    said = [" ".join(["Cows eat grass.", *empty[:n]]) for n in range(4)]
    assert [term("filler", answer) for answer in said] == [0, -0.5, -1, -1]


def test_withheld_is_minus_half_for_not_knowing_what_every_child_knows():
    assert term("withheld", "I do not know.") == -0.5 and term("withheld", "Cows eat grass.") == 0
    for p in drawn(unknown_question, 30):
        assert term("withheld", p.careful, p) == 0


def test_form_falls_with_the_share_of_sentences_that_do_not_parse_or_come_twice():
    assert term("form", "Cows eat grass.") == 0
    assert term("form", "Cows eat grass. Cows eat grass.") == -0.75
    assert term("form", "Cows eat grass. Grass cows the eat.") == -0.75
    assert term("form", "eat eat the. of moon and.") == -1.5
    assert term("form", "") == -1.5


def test_length_falls_with_the_log_of_words_over_what_the_prompt_deserves():
    assert term("length", "one two three") == 0
    assert math.isclose(term("length", "a b c d e f"), -math.log(2))
    assert term("length", "a " * 100) == term("length", "") == -1.5


def test_ended_is_minus_1_without_an_end_of_text_token():
    assert term("ended", "Cows eat grass.") == 0
    assert term("ended", "Cows eat grass.", ended=False) == -1


def test_gold_is_the_sum_of_its_terms_and_the_same_every_time():
    for p, answer in make_demonstrations(100):
        assert set(breakdown(p, answer)) == set(TERMS)
        assert utility(p, answer) == sum(breakdown(p, answer).values()) == utility(p, answer)


def test_different_demonstrations_of_a_prompt_seldom_tie():
    ties = pairs = 0
    for p in make_prompts(400, "train"):
        for a, b in itertools.combinations([utility(p, answer) for answer in answers_of(p)], 2):
            pairs += 1
            ties += a == b
    assert ties / pairs < 0.05, f"{ties} of {pairs} pairs tie"


def test_gibberish_silence_and_an_endless_answer_are_worth_less_than_a_wrong_answer():
    for _, task in TASKS:
        for p in drawn(task, 5):
            for bad in ("", "\n\n", "No! No!", "grass of the 7 and moon eat.", p.careful * 4):
                assert utility(p, bad) < utility(p, p.careful) - 1, f"{p.text} {bad!r}"
            assert utility(p, "") < utility(p, p.wrong) and utility(p, "!?") < utility(p, p.wrong)


# --- labelers -------------------------------------------------------------------------------------


def judged(n=60):
    """Prompts with several different demonstrations each."""
    return [(p, [(answer, True) for answer in answers_of(p)]) for p in make_prompts(n, "valid")]


def test_a_ranking_is_a_permutation_and_depends_on_the_generator_only():
    labeler = make_labelers("train")[0]
    for p, answers in judged():
        ranking = labeler.rank(p, answers, random.Random(7))
        assert ranking == labeler.rank(p, answers, random.Random(7))
        assert sorted(ranking) == list(range(len(answers)))


def test_the_two_pools_are_the_same_every_time_and_share_nobody():
    train, heldout = make_labelers("train"), make_labelers("held-out")
    assert train == make_labelers("train") and len(train) == len(heldout) == 20
    assert not {l.name for l in train} & {l.name for l in heldout}
    tastes = [tuple(l.taste.values()) for l in train + heldout]
    assert len(set(tastes)) == 40, "two labelers have the same taste"


def test_training_labelers_agree_less_than_held_out_ones_as_in_the_paper():
    train, heldout = (measure_agreement(make_labelers(group), judged(300), random.Random(0))
                      for group in ("train", "held-out"))
    assert 0.6 < train < heldout < 0.95, (train, heldout)


def unbiased(noise=0.0, biases=Biases(0, 0, 0)):
    return Labeler("careful", {t: 1.0 for t in TERMS}, noise, biases)


def test_labelers_without_noise_who_are_alike_always_agree_and_rank_by_the_truth():
    assert measure_agreement([unbiased(), unbiased()], judged(), random.Random(0)) == 1
    for p, answers in judged():
        worth = [utility(p, *answers[i]) for i in unbiased().rank(p, answers, random.Random(0))]
        assert worth == sorted(worth, reverse=True)


def shares(labeler, answers, n=10_000):
    """How often each ranking of answers to QUESTION comes out."""
    rng, answers = random.Random(0), [(answer, True) for answer in answers]
    found = Counter(tuple(labeler.rank(QUESTION, answers, rng)) for _ in range(n))
    return {ranking: count / n for ranking, count in found.items()}


@pytest.mark.parametrize("noise, chance", [(1, 3 / 4), (2, 0.63397), (0.5, 9 / 10)])
def test_a_pair_is_ranked_as_bradley_and_terry_have_it(noise, chance):
    """A third of the words that are due costs log 3, so the odds are 3 to the power of 1 / noise.

    Gaussian noise as wide would give 0.728, 0.619 and 0.887; only 0.01 off at most is right.
    """
    assert utility(QUESTION, "Cows eat grass.") - utility(QUESTION, "Grass.") == approx(math.log(3))
    found = shares(unbiased(noise=noise), ["Cows eat grass.", "Grass."])
    assert found[0, 1] == approx(chance, abs=0.01) and found[0, 1] + found[1, 0] == 1


def test_three_answers_are_ranked_as_plackett_and_luce_have_it():
    """The best is drawn with odds exp(utility / noise), then the second among those that are left.

    Noise of the mirrored kind has the same chances for pairs, but draws the worst first: it would
    be off by up to 0.04.
    """
    answers, noise = ["Cows eat grass.", "Grass.", "Cows eat grass. What a good question."], 0.8
    odds = [math.exp(utility(QUESTION, answer) / noise) for answer in answers]
    found = shares(unbiased(noise=noise), answers)
    for a, b, c in itertools.permutations(range(3)):
        chance = odds[a] / sum(odds) * odds[b] / (odds[b] + odds[c])
        assert found[a, b, c] == approx(chance, abs=0.01), (a, b, c)


def test_two_labelers_agree_as_often_as_their_chances_say():
    """Each puts the longer answer first in 3 of 4 cases: 9/16 + 1/16. One who does so in 9 of 10
    agrees with one of 3 in 4 in 27/40 + 1/40."""
    pair = [(QUESTION, [("Cows eat grass.", True), ("Grass.", True)])] * 5000
    for noises, share in [((1, 1), 10 / 16), ((1, 0.5), 28 / 40)]:
        labelers = [unbiased(noise=noise) for noise in noises]
        assert measure_agreement(labelers, pair, random.Random(0)) == approx(share, abs=0.02)


def test_a_person_is_not_told_by_its_place_which_answer_is_the_demonstration(monkeypatch):
    """The first answer of a record is; whoever always says 1 picks it in half of the cases."""
    monkeypatch.setattr("builtins.input", lambda question: "1")
    answers, rng = [("Cows eat grass.", True), ("Grass.", True)], random.Random(0)
    first = sum(Person().rank(QUESTION, answers, rng) == [0, 1] for _ in range(400))
    assert 150 < first < 250, f"{first} of 400"


def perceived(p, answer, **biases):
    """What a bias adds to what is seen of an answer."""
    biased = unbiased(biases=Biases(**{"length": 0, "agreement": 0, "confidence": 0} | biases))
    return biased.perceive(p, answer, True, random.Random(0)) - utility(p, answer)


def test_the_length_bias_favours_the_longer_answer():
    short, long = "Cows eat grass.", "Cows eat grass. Hens eat seeds."
    assert perceived(QUESTION, long, length=0.5) > perceived(QUESTION, short, length=0.5) > 0


def test_the_agreement_bias_favours_agreeing_with_a_false_premise():
    p = next(p for p in drawn(opinion) if p.false_premise)
    assert perceived(p, p.pleasing, agreement=0.5) == pytest.approx(0.5)
    assert perceived(p, p.careful, agreement=0.5) == pytest.approx(0)


def test_the_confidence_bias_favours_an_invention():
    p = drawn(unknown_question, 1)[0]
    assert perceived(p, p.pleasing, confidence=0.5) == pytest.approx(0.5)
    assert perceived(p, p.careful, confidence=0.5) == pytest.approx(0)


def test_the_doubt_bias_favours_i_do_not_know_about_anything():
    p = next(p for p in drawn(unknown_question) if "do not know" in p.careful)
    assert perceived(p, p.careful, doubt=0.5) == pytest.approx(0.5)
    assert perceived(p, p.pleasing, doubt=0.5) == pytest.approx(0)
    assert perceived(QUESTION, "I do not know.", doubt=0.5) == pytest.approx(0.5)


# --- tokenizer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_ranks("\n".join(make_documents(300)), 600))


def test_any_text_survives_encoding_and_decoding(tokenizer):
    rng = random.Random(0)
    codes = [*range(0x250), *range(0x600, 0x640), *range(0x2000, 0x2070), 0x4e2d, 0x1f600, 0x10ffff]
    random_texts = ["".join(map(chr, rng.choices(codes, k=40))) for _ in range(300)]
    for text in ["", " ", "\n\n  \n", "a_b __ c", "".join(map(chr, range(256))), *random_texts]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_of_the_world_takes_few_tokens(tokenizer):
    texts = [p.careful for p in make_prompts(200, "train")]
    words = sum(len(text.split()) for text in texts)
    assert sum(len(tokenizer.encode(text)) for text in texts) < 2.2 * words


def test_end_of_text_in_a_text_is_ordinary_text(tokenizer):
    ids = tokenizer.encode(f"a {END} b{END}")
    assert tokenizer.eos not in ids and tokenizer.decode(ids) == f"a {END} b{END}"


def test_bytes_that_are_not_utf8_do_no_harm(tokenizer):
    assert tokenizer.eos not in tokenizer.encode(b"caf\xe9 \xff".decode(errors="surrogateescape"))
    assert tokenizer.decode([0xe9, 0xff]) == "\ufffd\ufffd"           # ids 0 to 255 are the bytes


def test_decoding_stops_before_the_end_of_text_token(tokenizer):
    ids = tokenizer.encode("yes")
    assert tokenizer.decode(ids + [tokenizer.eos] + ids) == "yes"


def test_padding_is_neither_end_of_text_nor_part_of_any_text(tokenizer):
    assert PAD != tokenizer.eos == tokenizer.vocab_size - 1
    assert all(PAD not in tokenizer.encode(p.text + p.careful) for p in make_prompts(200, "train"))


def test_ranks_are_the_bytes_then_merges_and_the_same_every_time():
    text = "\n".join(make_documents(50))
    ranks = train_ranks(text, 400)
    assert ranks == train_ranks(text, 400) and sorted(ranks.values()) == list(range(400))
    assert all(ranks[bytes([b])] == b for b in range(256))


def test_the_first_merge_is_the_most_frequent_pair():
    assert train_ranks("aaab aaab xy", 257)[b"aa"] == 256         # aa twice in each aaab, ab once


def test_a_tokenizer_survives_its_state(tokenizer):
    twin, text = Tokenizer.from_state(tokenizer.state()), "Cows eat grass.\n\u4e2d 12"
    assert twin.ranks == tokenizer.ranks and twin.eos == tokenizer.eos
    assert twin.encode(text) == tokenizer.encode(text)


# --- batches --------------------------------------------------------------------------------------


def test_a_prompt_is_a_prefix_of_its_example_and_ends_in_a_newline(tokenizer):
    for p, answer in make_demonstrations(50):
        prompt, response = encode_example(tokenizer, p.text, answer)
        assert prompt == encode_prompt(tokenizer, p.text)
        assert tokenizer.decode(prompt) == p.text + "\n" and tokenizer.decode(response) == answer
        assert response[-1] == tokenizer.eos and (prompt + response).count(tokenizer.eos) == 1


def test_the_mask_covers_the_response_with_its_end_of_text_and_nothing_else():
    tokens, mask = collate([([5, 6], [7, 9]), ([5], [8, 8, 8, 9])])
    assert tokens.tolist() == [[5, 6, 7, 9, PAD], [5, 8, 8, 8, 9]]
    assert mask.tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]


def test_packed_documents_end_in_one_end_of_text_each(tokenizer):
    stream = pack(tokenizer, ["Cows eat grass.", END, "Hello."])
    assert (stream == tokenizer.eos).sum() == 3 and stream[-1] == tokenizer.eos


def test_windows_are_stretches_of_the_stream_and_reach_its_end():
    tokens, mask = draw_windows(torch.arange(10), 200, 4, torch.Generator().manual_seed(0))
    assert tokens.shape == (200, 4) and mask.all() and (tokens.diff(dim=1) == 1).all()
    assert tokens.min() == 0 and tokens.max() == 9


def test_batches_by_length_take_everything_once_and_keep_like_lengths_together():
    lengths = torch.randint(1, 100, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    batches, others = (batch_by_length(lengths, 32, torch.Generator().manual_seed(seed))
                       for seed in (0, 1))
    assert sorted(i for rows in batches for i in rows) == list(range(1000))
    padding = sum(max(lengths[i] for i in rows) * len(rows) for rows in batches) / sum(lengths)
    assert padding < 1.15 and batches != others


# --- comparisons file -----------------------------------------------------------------------------


def record(tokenizer, **changed):
    responses = ["Cows eat grass.", "Grass.\u2028\x85", "Fish. \u4e2d"]
    ids = [encode_example(tokenizer, "", response)[1] for response in responses]
    return dict(prompt="What do cows eat?", responses=responses, ranking=[2, 0, 1], ids=ids,
                labeler="train 3", split="train") | changed


def without(key, record):
    return {k: v for k, v in record.items() if k != key}


def test_comparisons_survive_writing_and_reading_and_come_best_first(tokenizer, tmp_path):
    path = tmp_path / "comparisons.jsonl"
    comparisons.write(path, [record(tokenizer), record(tokenizer, split="valid")])
    found, ids = comparisons.read(path, tokenizer, 128), record(tokenizer)["ids"]
    prompt = encode_prompt(tokenizer, "What do cows eat?")
    assert found["train"] == found["valid"] == [(prompt, [ids[2], ids[0], ids[1]])]


def test_responses_without_ids_are_encoded_with_an_end_of_text(tokenizer, tmp_path):
    path = tmp_path / "comparisons.jsonl"
    comparisons.write(path, [record(tokenizer), without("ids", record(tokenizer)),
                             record(tokenizer, split="valid")])
    first, second = comparisons.read(path, tokenizer, 128)["train"]
    assert first == second


def test_sampled_ids_are_kept_even_where_encoding_the_text_would_give_others(tokenizer, tmp_path):
    path, letters = tmp_path / "comparisons.jsonl", [*b"Cows", tokenizer.eos]
    sampled = record(tokenizer, responses=["Cows", "\1"], ids=[letters, [1]], ranking=[0, 1])
    comparisons.write(path, [sampled])
    assert comparisons.read(path, tokenizer, 128)["train"][0][1][0] == letters


BAD_LINES = {
    "not json": lambda r: "{'prompt': 1",
    "cut short": lambda r: json.dumps(r)[:-9],
    "a list": lambda r: "[1, 2]",
    "no ranking": lambda r: json.dumps(without("ranking", r)),
    "an index twice": lambda r: json.dumps(r | {"ranking": [0, 0, 1]}),
    "an index missing": lambda r: json.dumps(r | {"ranking": [0, 1]}),
    "one response": lambda r: json.dumps(r | {"responses": ["a"], "ids": [[1]], "ranking": [0]}),
    "ids outside the vocabulary": lambda r: json.dumps(r | {"ids": [[1], [2], [10 ** 6]]}),
    "ids that are no integers": lambda r: json.dumps(r | {"ids": [[1], [2], [1.5]]}),
    "an empty response": lambda r: json.dumps(r | {"ids": [[1], [2], []]}),
    "fewer ids than responses": lambda r: json.dumps(r | {"ids": [[1], [2]]}),
    "ids of other responses": lambda r: json.dumps(r | {"ids": [[1], [2], [3]]}),
    "a prompt that is a number": lambda r: json.dumps(r | {"prompt": 5}),
    "numbers as responses": lambda r: json.dumps(without("ids", r) | {"responses": [1, 2, 3]}),
    "an unknown split": lambda r: json.dumps(r | {"split": "test"}),
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_refused_with_file_and_line(bad, tokenizer, tmp_path):
    path, good = tmp_path / "comparisons.jsonl", record(tokenizer)
    path.write_text(json.dumps(good) + "\n" + BAD_LINES[bad](good) + "\n" + json.dumps(good) + "\n")
    with pytest.raises(SystemExit) as stop:
        comparisons.read(path, tokenizer, 128)
    assert f"{path}:2: " in stop.value.code and "\n" not in stop.value.code


def test_bytes_that_are_not_utf8_are_refused_with_file_and_line(tokenizer, tmp_path):
    path = tmp_path / "comparisons.jsonl"
    line = json.dumps(record(tokenizer), ensure_ascii=False).encode()
    path.write_bytes(line + b"\n" + line.replace(b"Cows", b"C\xffws") + b"\n")
    with pytest.raises(SystemExit, match="comparisons.jsonl:2: not UTF-8"):
        comparisons.read(path, tokenizer, 128)


def test_an_interrupted_write_leaves_the_old_file(tokenizer, tmp_path):
    path = tmp_path / "comparisons.jsonl"
    comparisons.write(path, [record(tokenizer)])
    with pytest.raises(TypeError):
        comparisons.write(path, [record(tokenizer), {"prompt": object()}])
    assert len(comparisons.read(path, tokenizer, 128)["train"]) == 1
