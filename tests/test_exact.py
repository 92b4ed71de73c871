"""The experiments' exact figures against brute force."""

import itertools
import json
import math
import shutil
import sys

import numpy as np
import tools               # before torch: it says how torch's threads wait
import torch
from pytest import approx

from experiments import exact


def test_best_of_distribution_by_enumeration():
    """Three answers, drawn 1, 2 and 3 times in 6: every one of 6^3 triples of draws."""
    p, won = [1 / 6, 2 / 6, 3 / 6], [0.0, 0.0, 0.0]
    for draws in itertools.product(range(3), repeat=3):
        won[max(draws)] += math.prod(p[d] for d in draws)
    assert exact.best_of_distribution([1, 2, 3], 3) == approx(np.array(won))
    assert exact.best_of_distribution([1, 2, 3], 1) == approx(np.array(p))


def test_kl_by_hand():
    """KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 log 3/2 + 1/4 log 1/2 = 0.1308; the other way 0.1438."""
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert exact.kl(p, q).item() == approx(0.130812, abs=1e-5)
    assert exact.kl(q, p).item() == approx(0.143841, abs=1e-5)


def test_closed_form_is_the_best_of_all_policies():
    """J(pi) = E r - beta KL(pi || ref) lacks beta KL(pi || pi*) of J(pi*), for any pi."""
    torch.manual_seed(0)
    ref, reward, beta = torch.randn(1, 7).log_softmax(-1), torch.randn(1, 7), 0.3
    best = exact.closed_form(ref, reward, beta)
    objective = lambda logp: (logp.exp() * reward).sum() - beta * exact.kl(logp, ref).sum()
    for _ in range(20):
        other = (2 * torch.randn(1, 7)).log_softmax(-1)
        gap = objective(best) - objective(other)
        assert gap.item() == approx(beta * exact.kl(other, best).item(), abs=1e-5)


def measured(out, flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["exact.py", "--out", str(out), *flags.split()])
    exact.main()


def test_best_of_n_rises_with_n_and_stays_below_the_formula(copy, monkeypatch):
    measured(copy, "--measure best_of --prompts 12 --n 8", monkeypatch)
    rows = json.loads((copy / "best_of.json").read_text())
    assert [row["n"] for row in rows] == [1, 2, 4, 8] and rows[0]["kl"] == 0
    for less, more in zip(rows, rows[1:]):
        assert less["score"] < more["score"] and less["kl"] < more["kl"]
        assert more["kl"] <= more["kl_formula"] + 1e-9


def test_best_of_n_by_several_is_best_of_n_by_their_mean(copy, monkeypatch):
    """Two copies of a reward model have the mean, the worst and the variance of one."""
    for name in ("reward-1.pt", "reward-2.pt"):
        shutil.copy(copy / "reward.pt", copy / name)
    measured(copy, "--measure best_of --prompts 6 --n 4", monkeypatch)
    once = json.loads((copy / "best_of.json").read_text())
    for how in ("mean", "worst", "variance"):
        measured(copy, f"--measure best_of --prompts 6 --n 4 --how {how}", monkeypatch)
        assert json.loads((copy / "best_of.json").read_text())[-1] == approx(once[-1], abs=1e-5)


def test_rank_follows_bradley_and_terry(copy, monkeypatch):
    """Of one-token answers whose scores differ by d, the better one should win sigmoid(d)."""
    monkeypatch.setattr(exact, "score_all", lambda model, examples, device:
                        torch.tensor([1.0 * (ids[0] % 2) for _, ids in examples]))
    measured(copy, "--measure rank --prompts 600", monkeypatch)
    wins = pairs = 0
    for line in (copy / "comparisons.jsonl").read_text().splitlines():
        record = json.loads(line)
        ordered = [record["ids"][i][0] % 2 for i in record["ranking"]]
        for better, worse in itertools.combinations(ordered, 2):
            wins, pairs = wins + (better > worse), pairs + (better != worse)
    assert pairs > 500
    assert wins / pairs == approx(1 / (1 + math.exp(-1)), abs=4 * math.sqrt(0.2 / pairs))


def test_optimum_measures_every_policy(copy, monkeypatch):
    measured(copy, "--measure optimum --prompts 2 --beta 1", monkeypatch)
    found = json.loads((copy / "optimum.json").read_text())
    assert {"pi*", "base", "sft", "ppo", "dpo"} <= set(found) and "reward" not in found
    assert found["sft"]["kl"] == approx(0, abs=1e-6) and found["sft"]["distance"] > 0
    objective = {name: row["reward"] - 1 * row["kl"] for name, row in found.items()}
    for name, row in found.items():     # what the objective lacks is beta times the distance
        assert objective["pi*"] - objective[name] == approx(row["distance"], abs=1e-3)
