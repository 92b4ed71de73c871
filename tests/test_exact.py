"""Best of n and the closed form against enumeration."""

import itertools
import json
import math

import numpy as np
import torch
from conftest import call
from pytest import approx

from experiments import best_of, closed_form


def test_best_of_three_by_enumeration():
    """Three answers, drawn 1, 2 and 3 times in 6: every one of 6^3 triples of draws."""
    p, won = np.array([1 / 6, 2 / 6, 3 / 6]), np.zeros(3)
    for draws in itertools.product(range(3), repeat=3):
        won[max(draws)] += math.prod(p[d] for d in draws)
    scores, utilities = np.array([0.0, 1, 5]), np.array([2.0, 3, 1])
    expected = (won * np.log(won / p)).sum(), won @ scores, won @ utilities
    assert best_of.best_of(np.array([1, 2, 3]), scores, utilities, 3) == approx(expected)


def test_best_of_two_of_two_equally_frequent_answers():
    """The better one wins 3 of 4 pairs: KL = 3/4 log 3/2 + 1/4 log 1/2 = 0.1308, and not the
    log 2 - 1/2 = 0.1931 of answers that never repeat."""
    counts, scores, utilities = np.array([5.0, 5]), np.array([0.0, 4]), np.array([1.0, 3])
    assert best_of.best_of(counts, scores, utilities, 2) == approx((0.130812, 3, 2.5), abs=1e-5)


def test_best_of_n_rises_with_n_and_stays_below_the_formula(copy):
    call(best_of, copy, "--prompts 12 --n 8 --max-new-tokens 24")
    rows = json.loads((copy / "best_of.json").read_text())
    assert [row["n"] for row in rows] == [1, 2, 4, 8] and rows[0]["kl"] == 0
    for less, more in zip(rows, rows[1:]):
        assert less["score"] < more["score"] and less["kl"] < more["kl"]
        assert more["kl"] <= more["kl_formula"] + 1e-9
        assert more["kl_logprob"] <= more["kl_formula"] + 1e-9
    assert rows[0]["utility"] == approx(rows[0]["utility_logprob"]) and rows[-1]["kl_logprob"] > 0
    assert rows[-1]["utility_logprob"] != rows[-1]["utility"]        # another answer is chosen


def test_kl_by_hand():
    """KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 log 3/2 + 1/4 log 1/2 = 0.1308; the other way 0.1438."""
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert closed_form.kl(p, q).item() == approx(0.130812, abs=1e-5)
    assert closed_form.kl(q, p).item() == approx(0.143841, abs=1e-5)


def test_the_closed_form_is_the_best_of_all_policies():
    """J(pi) = E r - beta KL(pi || ref) lacks beta KL(pi || pi*) of J(pi*), for any pi."""
    torch.manual_seed(0)
    ref, reward, beta = torch.randn(1, 7).log_softmax(-1), torch.randn(1, 7), 0.3
    best = closed_form.closed_form(ref, reward, beta)

    def objective(logp):
        return (logp.exp() * reward).sum() - beta * closed_form.kl(logp, ref).sum()
    for _ in range(20):
        other = (2 * torch.randn(1, 7)).log_softmax(-1)
        gap = objective(best) - objective(other)
        assert gap.item() == approx(beta * closed_form.kl(other, best).item(), abs=1e-5)


def test_padding_does_not_change_the_next_tokens_probabilities(out):
    from tools.checkpoints import load_gpt
    model, _ = load_gpt(out / "sft.pt")
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    together = closed_form.next_token_logp(model, prompts)
    for prompt, row in zip(prompts, together):
        assert row.tolist() == approx(model(torch.tensor([prompt]))[0, -1].log_softmax(-1).tolist(),
                                      abs=1e-4)


def test_ppo_and_dpo_come_closer_to_the_optimum(copy):
    (copy / "answers.jsonl").unlink()                        # it would overwrite eval's results
    call(closed_form, copy, "--prompts 8 --beta 0.5 --iterations 10 --episodes 64 --minibatch 16 "
                            "--dpo-steps 30 --dpo-lr 1e-3 --lr 3e-3")
    measured = json.loads((copy / "results.json").read_text())
    for name in ("ppo-10", "dpo"):
        assert measured[name]["distance"] < measured["sft"]["distance"]
