"""Tables and pictures from made-up runs whose figures are known."""

import json
import math
import os

import numpy as np
import pytest
from pytest import approx

from experiments import clicks, figures, plot

pytest.importorskip("matplotlib")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "PICTURES", tmp_path / "pictures")
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


MODELS = ("base", "base_few_shot", "sft", "ppo", "ppo_ptx")


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def made_run(folder, seed, run, gold=0.5, parameters=1000):
    """Along it score = d and true utility = d (1 - 0.5 log d) above SFT's 0.25."""
    path = folder / f"seed-{seed}" / run
    steps = []
    for t in range(1, 21):
        d = 0.2 * t
        steps.append(dict(step=t, kl=d * d, score=d, gold=0.25 + d * (1 - 0.5 * math.log(d))))
    write(path / "metrics/ppo.jsonl", [dict(step=0, kl=0, score=0), *steps,
                                       dict(step=-1, seconds=1.0, score=4.0)])
    cell = dict(kl=16.0, score=4.0, gold=gold, right=0.5, lm_loss=0.7, few_shot=0.8)
    write(path / "results.json", [dict(sft=dict(cell, gold=0.25), ppo=cell, dpo=cell, base=cell,
                                       base_few_shot=cell, ppo_ptx=cell, parameters=parameters,
                                       rm=dict(accuracy_gold=0.8 + 0.1 * seed), seed=seed)])
    write(path / "answers.jsonl", [dict(model=model, prompt=f"Prompt {i}?", ended=True,
                                        gold=0.25 + place, answer=f"An answer of {model}.")
                                   for place, model in enumerate(MODELS) for i in range(8)])
    return path


def test_gao_finds_the_coefficients_of_its_own_curve():
    d = np.linspace(0.1, 5, 40)
    a, b = figures.fit_gao(d, d * (1.3 - 0.4 * np.log(d)))
    assert (a, b) == (approx(1.3), approx(0.4))


def test_a_table_is_mean_and_spread_over_seeds(tmp_path, capsys):
    for seed, gold in ((0, 1.0), (1, 2.0)):
        made_run(tmp_path, seed, "one", gold)
    made_run(tmp_path, 0, "two", 3.0)
    (tmp_path / "seed-0" / "unfinished").mkdir()
    plot.table(tmp_path, "ppo", "gold", "kl")
    plot.table(tmp_path, "rm", "accuracy_gold")
    printed = capsys.readouterr().out.splitlines()
    assert printed[2:4] == ["| one | 2 | 1.50 ± 0.71 | 16.00 ± 0.00 |",
                            "| two | 1 | 3.00 ± 0.00 | 16.00 ± 0.00 |"]
    assert "| one | 2 | 0.85 ± 0.07 |" in printed


def test_points_are_drawn_where_a_run_has_the_figure(tmp_path, pictures, capsys):
    for seed in (0, 1):
        made_run(tmp_path, seed, "one")
    plot.points(tmp_path, "ppo", "gold", "unheard_of")
    assert "| one | 2 | 0.50 ± 0.00 |  |" in capsys.readouterr().out
    assert "<svg" in (pictures / f"{tmp_path.name}.svg").read_text()


def test_two_models_share_a_picture_and_a_run_that_one_lacks_is_left_out_there(tmp_path, pictures,
                                                                               capsys):
    for run in ("one", "two"):
        path = made_run(tmp_path, 0, run)
    results = plot.read_results(path)
    del results["dpo"]
    (path / "results.json").write_text(json.dumps(results))
    plot.points(tmp_path, "ppo,dpo", "gold")
    ppo, dpo = capsys.readouterr().out.split("\nDPO\n")
    assert "| two |" in ppo and "| one |" in dpo and "| two |" not in dpo
    assert "PPO and DPO" in (pictures / f"{tmp_path.name}.svg").read_text()


def test_the_dial_marks_the_peak_of_a_known_curve(tmp_path, pictures, capsys):
    for seed in (0, 1):
        for beta in (0, 0.02, 0.05, 0.1, 0.2, 0.5):
            path = made_run(tmp_path, seed, f"beta-{beta}")
            os.utime(path)
    figures.dial(tmp_path)
    printed = capsys.readouterr().out
    assert f"peak at d = {math.e:.2f}" in printed and "a 1.00, b 0.50, R2 1.00" in printed
    assert (pictures / "dial.svg").stat().st_size > 10_000


def test_figure_1_counts_wins_against_the_sft_model_of_the_largest_run(tmp_path, pictures, capsys):
    """In made runs each kind of model is better by 1 than the one before it, at every size."""
    for seed in (0, 1):
        made_run(tmp_path, seed, "large", parameters=4000)
        made_run(tmp_path, seed, "small", parameters=1000)
    figures.figure1(tmp_path)
    printed = capsys.readouterr().out
    assert "| wins, true utility | 0.00 M | 0.00 M |" in printed
    for name, won in (("base", 0), ("base, few-shot page", 0), ("SFT", 0.5), ("PPO", 1)):
        assert f"| {name} | {won:.2f} ± 0.00 | {won:.2f} ± 0.00 |" in printed
    assert (pictures / "figure1.svg").is_file()


def test_figure_1_leaves_out_a_seed_that_has_no_largest_run(tmp_path, pictures, capsys):
    made_run(tmp_path, 0, "large", parameters=4000)
    for seed in (0, 1):
        made_run(tmp_path, seed, "small", gold=seed, parameters=1000)
    figures.figure1(tmp_path)
    assert "| PPO | 1.00 ± 0.00 | 1.00 ± 0.00 |" in capsys.readouterr().out


def test_the_tax_shows_the_finished_run_and_what_was_turned(tmp_path, pictures, capsys):
    for run in ("as-trained", "gamma-3", "beta-1"):
        made_run(tmp_path, 0, run)
    figures.tax(tmp_path)
    assert "sft: pretraining loss 0.700 ± 0.000, true utility 0.25" in capsys.readouterr().out
    assert "gamma 3" in (pictures / "tax.svg").read_text()


def test_best_of_n_and_the_closed_form(tmp_path, pictures, capsys):
    for seed in (0, 1):
        path = made_run(tmp_path, seed, "n")
        rows = [dict(n=n, kl_formula=math.log(n) - (n - 1) / n, kl=0.3 * n, score=n / 10 + seed,
                     gold=0.5) for n in (2, 4, 8)]
        (path / "best_of.json").write_text(json.dumps(rows))
        names = ("pi*", "sft", "ppo-10", "ppo-40", "dpo")
        (path / "optimum.json").write_text(json.dumps(
            {name: dict(distance=1.0 / (i + 1)) for i, name in enumerate(names)}))
    figures.best_of(tmp_path)
    assert "| 4 | 0.64 |" in capsys.readouterr().out
    figures.optimum(tmp_path)
    assert "sft 0.500 ± 0.000, ppo-10 0.333" in capsys.readouterr().out
    for name in ("best_of", "closed_form"):
        assert (pictures / f"{name}.svg").is_file()


def test_votes_order_answers_by_the_log_of_their_odds():
    scores = clicks.fit_bradley_terry([(0, 1), (1, 2)], 3)
    assert scores[0] > scores[1] > scores[2] and sum(scores) == approx(0, abs=1e-4)
    even = clicks.fit_bradley_terry([(0, 1)] * 30 + [(1, 0)] * 10, 2)   # three to one: log 3 apart
    assert even[0] - even[1] == approx(math.log(3), abs=0.1)


def test_remedies_stop_at_the_first_look_past_a_kl_of_one(tmp_path, pictures, capsys):
    """Along a made run kl = d^2 at d = 0.2, 0.4, ..., so 1.2 is the first past 1, and the last 4."""
    for how in ("one", "mean", "worst", "variance"):
        for seed in (0, 1):
            made_run(tmp_path, seed, how)
            row = dict(n=64, kl=2.0, gold=seed)
            write(tmp_path / f"seed-{seed}/best-of-{how}/best_of.json", [[row]])
    figures.remedies(tmp_path)
    stopped, end = (0.25 + d * (1 - 0.5 * math.log(d)) for d in (1.2, 4))
    assert (f"| mean | 0.50 ± 0.71 | {end:.2f} ± 0.00 | 16.00 ± 0.00 | 0.50 ± 0.00 | "
            f"{stopped:.2f} ± 0.00 |") in capsys.readouterr().out
    assert (pictures / "remedies.svg").is_file()


def test_a_run_below_its_sft_model_has_collapsed(tmp_path, pictures, capsys):
    for seed, gold in ((0, 0.2), (1, 0.3)):
        made_run(tmp_path, seed, "passes-1-lr-2e-4-clip-kl", gold=gold)
        made_run(tmp_path, seed, "passes-4-lr-1e-3-none", gold=-1)
    figures.leashes(tmp_path)
    printed = capsys.readouterr().out
    assert "| 1 pass, lr 0.0002 | clip and KL | 4.00 ± 0.00 | 0.25 ± 0.07 |" in printed
    assert "| 1 of 2 |" in printed and "| 4 passes, lr 0.001 | neither |" in printed
    assert "| 2 of 2 |" in printed and (pictures / "leashes.svg").is_file()


def test_what_the_reward_model_learns_from_is_drawn_run_by_run(tmp_path, pictures, monkeypatch):
    """A made run is right on 0.8 of pairs at seed 0, on 0.9 at seed 1: the mean is 0.85."""
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, name: drawn.append(figure))
    for run in ("prompts-100", "prompts-4000", "plain-100", "k-2", "whole-1", "pairs-1",
                "size-1x32", "fold-0"):
        for seed in (0, 1):
            path = made_run(tmp_path, seed, run)
            results = plot.read_results(path)
            results["rm"]["reads_wrong"] = 0.6 if run.startswith("plain") else 0.7
            (path / "results.json").write_text(json.dumps(results))
    figures.learns(tmp_path)
    lines = [[bar.lines[0].get_ydata().tolist() for bar in axis.containers]
             for axis in drawn[0].axes]
    gold, read, plain = [approx(0.85)], [approx(0.7)], [approx(0.6)]
    assert lines == [[gold * 2, read * 2, gold, plain], [gold, read], [gold, read, gold, read],
                     [gold, read]]
