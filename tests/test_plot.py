"""Tables and pictures from made-up runs whose figures are known."""

import json
import math
import os

import numpy as np
import pytest
from pytest import approx

from experiments import plot

pytest.importorskip("matplotlib")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "PICTURES", tmp_path / "pictures")
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def made_run(folder, seed, run, gold=0.5):
    """Along it score = d and true utility = d (1 - 0.5 log d) above SFT's 0.25."""
    path = folder / f"seed-{seed}" / run
    steps = []
    for t in range(1, 21):
        d = 0.2 * t
        steps.append(dict(step=t, kl=d * d, score=d, gold=0.25 + d * (1 - 0.5 * math.log(d))))
    write(path / "metrics/ppo.jsonl", [dict(step=0, kl=0, score=0), *steps,
                                       dict(step=-1, seconds=1.0, score=4.0)])
    write(path / "metrics/reward.jsonl", [dict(step=-1, accuracy_gold=0.8 + 0.1 * seed)])
    cell = dict(kl=16.0, score=4.0, gold=gold, win_gold=0.7, win_labelers=0.6)
    write(path / "results.json", [dict(sft=dict(cell, gold=0.25), ppo=cell, dpo=cell, base=cell,
                                       base_few_shot=cell, ppo_ptx=cell)])
    write(path / "answers.jsonl", [dict(model=model, prompt=f"Prompt {i}?", gold=0.25,
                                        answer="An $answer$. " * 20)
                                   for model in ("sft", "ppo") for i in range(8)])
    return path


def test_gao_finds_the_coefficients_of_its_own_curve():
    d = np.linspace(0.1, 5, 40)
    a, b = plot.gao(d, d * (1.3 - 0.4 * np.log(d)))
    assert (a, b) == (approx(1.3), approx(0.4))


def test_a_table_is_mean_and_spread_over_seeds(tmp_path, capsys):
    for seed, gold in ((0, 1.0), (1, 2.0)):
        made_run(tmp_path, seed, "one", gold)
    made_run(tmp_path, 0, "two", 3.0)
    (tmp_path / "seed-0" / "unfinished").mkdir()
    plot.table(tmp_path, "ppo", "gold", "kl")
    plot.closing(tmp_path, "reward", "accuracy_gold")
    printed = capsys.readouterr().out.splitlines()
    assert printed[2:4] == ["| one | 2 | 1.50 ± 0.71 | 16.00 ± 0.00 |",
                            "| two | 1 | 3.00 ± 0.00 | 16.00 ± 0.00 |"]
    assert "| one | 2 | 0.85 ± 0.07 |" in printed


def test_the_dial_marks_the_peak_of_a_known_curve(tmp_path, pictures, capsys):
    for seed in (0, 1):
        for beta in (0, 0.02, 0.05, 0.1, 0.2, 0.5):
            path = made_run(tmp_path, seed, f"beta-{beta}")
            os.utime(path)
    plot.dial(tmp_path)
    printed = capsys.readouterr().out
    assert f"peak at d = {math.e:.2f}" in printed and "a 1.00, b 0.50, R2 1.00" in printed
    assert (pictures / "dial.png").stat().st_size > 10_000


def test_best_of_n_and_the_closed_form_and_seeds(tmp_path, pictures, capsys):
    for seed in (0, 1):
        path = made_run(tmp_path, seed, "n")
        rows = [dict(n=n, kl_formula=math.log(n) - (n - 1) / n, kl=0.3 * n, score=n / 10 + seed,
                     gold=0.5) for n in (2, 4, 8)]
        (path / "best_of.json").write_text(json.dumps(rows))
        names = ("pi*", "sft", "ppo-10", "ppo-40", "dpo")
        (path / "optimum.json").write_text(json.dumps(
            {name: dict(distance=1.0 / (i + 1)) for i, name in enumerate(names)}))
    plot.best_of(tmp_path)
    assert "| 4 | 0.64 |" in capsys.readouterr().out
    plot.optimum(tmp_path)
    assert "sft 0.500 ± 0.000, ppo-10 0.333" in capsys.readouterr().out
    plot.seeds(*(tmp_path / f"seed-{seed}" / "n" for seed in (0, 1)))
    assert "ppo            wins 0.70 ± 0.00, worst 0.70" in capsys.readouterr().out
    for name in ("best_of", "closed_form", "seeds"):
        assert (pictures / f"{name}.png").is_file()


def test_votes_order_answers_by_the_log_of_their_odds():
    scores = plot.bradley_terry([(0, 1), (1, 2)], 3)
    assert scores[0] > scores[1] > scores[2] and sum(scores) == approx(0, abs=1e-4)
    even = plot.bradley_terry([(0, 1)] * 30 + [(1, 0)] * 10, 2)      # three to one: log 3 apart
    assert even[0] - even[1] == approx(math.log(3), abs=0.1)
