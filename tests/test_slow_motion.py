"""Every table of report/slow_motion.py, computed again in plain Python from its own cells."""

import math
import statistics

import pytest
import torch
from conftest import call
from pytest import approx

from data.batches import encode_prompt
from report import slow_motion
from tools.checkpoints import load_gpt


@pytest.fixture(scope="module")
def shown(out, tmp_path_factory):
    """-> chapters: {title: its tables (header, rows, totals)}, and the page"""
    chapters, table, chapter = {}, slow_motion.Page.table, slow_motion.Page.chapter

    def keep_chapter(page, title):
        chapters[title[0]] = []
        chapter(page, title)

    def keep_table(page, header, rows, totals=()):
        chapters[list(chapters)[-1]].append((header, rows, totals))
        table(page, header, rows, totals)

    slow_motion.Page.chapter, slow_motion.Page.table = keep_chapter, keep_table
    path = tmp_path_factory.mktemp("slow") / "slow.html"
    find, slow_motion.find_comparison = slow_motion.find_comparison, find_any(out)
    try:
        call(slow_motion, out, f"--html {path}")
    finally:
        slow_motion.Page.chapter, slow_motion.Page.table = chapter, table
        slow_motion.find_comparison = find
    return chapters, path.read_text()


def find_any(out):
    """The tiny run has long answers."""
    def find_comparison(config):
        for record in slow_motion.read_held_out(config):
            order = [i for i in record["ranking"] if i < 4]
            if len(order) == 4:
                return record, order
    return find_comparison


def columns(table):
    header, rows, _ = table
    return dict(zip(header, zip(*rows)))


def test_the_loss_is_minus_the_mean_log_prob_of_the_tokens_in_the_mask(shown, out):
    header, rows, [total] = shown[0]["1"][0]
    counted = [-row[4] for row in rows[1:] if row[2] == 1]
    assert [row[5] for row in rows if row[2] == 1] == approx(counted)
    assert total[-1] == approx(sum(counted) / len(counted), abs=1e-5) and total[2] == len(counted)
    sft, tokenizer = load_gpt(out / "sft.pt")
    record, _ = find_any(out)(slow_motion.Config(out=str(out)))
    ids = encode_prompt(tokenizer, record["prompt"]) + record["ids"][0]
    with torch.no_grad():
        logits = sft(torch.tensor([ids]))[0]
    for t, row in enumerate(rows[1:], 1):                    # the logits one position earlier
        numbers = logits[t - 1].tolist()
        largest = max(numbers)
        log_sum = largest + math.log(sum(math.exp(number - largest) for number in numbers))
        assert row[4] == approx(numbers[ids[t]] - log_sum, abs=1e-4)
    assert [row[2] for row in rows].index(1) == len(encode_prompt(tokenizer, record["prompt"]))


def test_pairs_and_their_mean(shown):
    (_, answers, _), (_, pairs, [total]) = shown[0]["2"]
    scores = {name: score for name, _, score in answers}
    names = [f"{w} > {l}" for i, w in enumerate("ABCD") for l in "ABCD"[i + 1:]]
    assert [pair[0] for pair in pairs] == names
    for name, margin, probability, loss in pairs:
        assert margin == approx(scores[name[0]] - scores[name[-1]], abs=1e-5)
        assert probability == approx(1 / (1 + math.exp(-margin)), abs=1e-5)
        assert loss == approx(-math.log(probability), abs=1e-5)
    assert total[-1] == approx(statistics.mean(pair[-1] for pair in pairs), abs=1e-5)


def test_rewards_advantages_and_the_clip(shown):
    rewards, advantages, *updates = shown[0]["3"]
    score, beta, lam, clip = rewards[2][0][4], 0.1, 0.95, 0.2
    for i, (_, logp, ref, ratio, last, reward) in enumerate(rewards[1]):
        is_last = i == len(rewards[1]) - 1
        assert ratio == approx(logp - ref) and (last == score if is_last else last == "")
        assert reward == approx(-beta * (logp - ref) + (score if is_last else 0), abs=1e-5)
    assert rewards[2][0][5] == approx(sum(row[5] for row in rewards[1]))
    later = next_value = 0
    for _, reward, value, shown_next, delta, adv, ret, _ in reversed(advantages[1]):
        assert shown_next == approx(next_value)
        assert delta == approx(reward + next_value - value, abs=1e-5)
        later = delta + lam * later
        assert adv == approx(later, abs=1e-4) and ret == approx(adv + value, abs=1e-4)
        next_value = value
    table = columns(advantages)
    slope = [(a - b) / (c - d) for a, b, c, d in zip(
        table["whitened A"], table["whitened A"][1:], table["A"], table["A"][1:])
        if abs(c - d) > 0.05]
    assert slope and slope == approx([slope[0]] * len(slope), rel=1e-2) and slope[0] > 0
    assert len(updates) == 2
    for (_, rows, _) in updates:
        for _, adv, old, new, ratio, product, clipped, term, acts in rows:
            assert ratio == approx(math.exp(new - old), rel=1e-4)
            assert product == approx(ratio * adv, abs=1e-5)
            assert clipped == approx(min(max(ratio, 1 - clip), 1 + clip) * adv, abs=1e-5)
            assert term == min(product, clipped) and (acts == "clipped") == (clipped < product)
    assert columns(updates[0])["A"] == approx(table["whitened A"])
    far = [max(abs(ratio - 1) for ratio in columns(update)["ratio"]) for update in updates]
    assert 0 < far[0] < far[1]


def test_dpo_starts_at_log_2(shown):
    [(_, rows, _)] = shown[0]["4"]
    for _, pi_w, ref_w, pi_l, ref_l, margin, loss in rows:
        assert margin == approx(0.3 * ((pi_w - ref_w) - (pi_l - ref_l)), abs=1e-4)
        assert loss == approx(math.log(1 + math.exp(-margin)), abs=1e-4)
    assert rows[0][6] == approx(math.log(2)) and rows[1][5] != 0


def test_the_closed_form_is_the_tilted_reference(shown):
    [(header, rows, (mean, distance))] = shown[0]["5"]
    scores, ref = [row[1] for row in rows], [row[2] for row in rows]
    assert sum(ref) == approx(1)
    for column, beta in enumerate((2, 0.5, 0.1, 0.05), 3):
        tilted = [p * math.exp(r / beta) for p, r in zip(ref, scores)]
        best = [x / sum(tilted) for x in tilted]
        assert [row[column] for row in rows] == approx(best, abs=1e-4)
        assert mean[column] == approx(sum(p * r for p, r in zip(best, scores)), abs=1e-4)
        expected = sum(p * math.log(p / q) for p, q in zip(best, ref) if p > 0)
        assert distance[column] == approx(expected, abs=1e-4)


def test_a_group_has_mean_0(shown):
    [(_, rows, (mean, deviation))] = shown[0]["6"]
    verdicts = [row[2] for row in rows]
    assert mean[2] == approx(statistics.mean(verdicts))
    assert deviation[2] == approx(statistics.pstdev(verdicts))
    for row in rows:
        assert row[3] == approx((row[2] - mean[2]) / (deviation[2] + 1e-4), abs=1e-4)


def test_the_page_has_every_table_and_shows_text_as_text(shown):
    chapters, page = shown
    assert page.count("<table>") == sum(map(len, chapters.values())) == 10
    assert "PARTS" not in page and "&lt;end&gt;" in page and "<end>" not in page
