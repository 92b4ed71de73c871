"""Tables and pictures of made-up runs whose numbers are known; the page."""

import json
import math
import shutil
import subprocess

import pytest
import torch
from pytest import approx

from experiments import closed_form, page, plot, tables

pytest.importorskip("matplotlib")
MODELS = ("base", "base_few_shot", "sft", "ppo", "ppo_ptx")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "PICTURES", tmp_path / "pictures")
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def make_run(folder, seed, run, utility=0.5, parameters=1000):
    path = folder / f"seed-{seed}" / run
    cell = dict(kl=16.0, score=4.0, utility=utility, correct=0.5, utility_greedy=0.6)
    results = {model: cell for model in (*MODELS, "dpo")} | dict(
        sft=dict(cell, utility=0.25), parameters=parameters, seed=seed,
        rm=dict(accuracy_utility=0.8 + 0.1 * seed))
    write(path / "results.json", [results])
    answers = []
    for place, model in enumerate(MODELS):
        for i in range(8):
            answers.append(dict(model=model, prompt=f"Prompt {i}?", utility=place, kind=f"kind {i}",
                                answer="An answer </script>.",
                                terms=dict(form=-1.5, task=2) if i < 4 else dict(task=3),
                                correct=True))
    write(path / "answers.jsonl", answers)
    return path


def test_a_table_is_mean_and_spread_over_seeds(tmp_path, capsys):
    for seed, utility in ((0, 1.0), (1, 2.0)):
        make_run(tmp_path, seed, "one", utility)
    make_run(tmp_path, 0, "two", 3.0)
    (tmp_path / "seed-0" / "unfinished").mkdir()
    plot.table(tmp_path, "ppo,rm", "utility", "kl", "accuracy_utility")
    printed = capsys.readouterr().out.splitlines()
    assert "| one | 2 | 1.50 ± 0.71 | 16.00 ± 0.00 |  |" in printed
    assert "| two | 1 | 3.00 ± 0.00 | 16.00 ± 0.00 |  |" in printed
    assert "| one | 2 |  |  | 0.85 ± 0.07 |" in printed


def test_rows_are_of_runs_and_models(tmp_path, capsys):
    for seed in (0, 1):
        entries = {"prm": {"1": 1 + seed, "2": 5}, "orm": {"1": 3}, "other": {"x": 1}, "seed": seed}
        write(tmp_path / f"seed-{seed}" / "choose" / "results.json", [entries])
        write(tmp_path / f"seed-{seed}" / "rl" / "results.json", [{"ppo": {"2": seed}}])
    plot.rows(tmp_path, "1", "2")
    printed = capsys.readouterr().out.splitlines()
    assert "| choose prm | 2 | 1.50 ± 0.71 | 5.00 ± 0.00 |" in printed
    assert "| choose orm | 2 | 3.00 ± 0.00 |  |" in printed
    assert "| rl | 2 |  | 0.50 ± 0.71 |" in printed and not any("other" in x for x in printed)


def test_equal_kl_is_read_off_the_lines_between_runs(tmp_path, capsys):
    """From SFT at (0, 1) to (2, 3): 2 at 1; then down to (4, 1): 2 at 3; nothing beyond 4."""
    for seed in (0, 1):
        for run, model, kl, utility in (("sft", "sft", 0, 1), ("dpo-0.1", "dpo", 4, 1),
                                        ("dpo-1", "dpo", 2, 3), ("long-dpo-1", "dpo", 1, 9)):
            figures = {model: dict(kl=kl, utility=utility + seed)}
            write(tmp_path / f"seed-{seed}" / run / "results.json", [figures])
    plot.at_kl(tmp_path, "1", "3", "4", "5")
    row = "| dpo | 2.50 ± 0.71 | 2.50 ± 0.71 | 1.50 ± 0.71 |  |"
    assert capsys.readouterr().out.splitlines()[3:] == [row]


def test_every_run_is_exported_with_its_figures(tmp_path, capsys):
    for seed in (0, 1):
        make_run(tmp_path / "dial", seed, "beta-1", utility=seed + 0.12345)
    plot.export(tmp_path)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(x["experiment"], x["seed"], x["run"]) for x in lines] == [
        ("dial", "seed-0", "beta-1"), ("dial", "seed-1", "beta-1")]
    assert lines[1]["figures"]["ppo"]["utility"] == 1.1235
    assert "parameters" not in lines[0]["figures"]


def test_lost_terms_are_counted(tmp_path):
    path = make_run(tmp_path, 0, "one")
    assert tables.read_value(path, "ppo", "less_form") == 0.5
    assert tables.read_value(path, "ppo", "less_task") == 0.5


def test_points_of_two_models_share_a_picture(tmp_path, pictures, capsys):
    make_run(tmp_path, 0, "one")
    path = make_run(tmp_path, 0, "two")
    results = plot.read_results(path)
    del results["dpo"]
    (path / "results.json").write_text(json.dumps(results))
    plot.points(tmp_path, "ppo,dpo", "utility", "unheard_of")
    ppo, dpo = capsys.readouterr().out.split("\nDPO\n")
    assert "| two |" in ppo and "| one |" in dpo and "| two |" not in dpo
    assert "<svg" in (pictures / f"{tmp_path.name}.svg").read_text()


def test_the_dial_and_figure_1_are_drawn(tmp_path, pictures):
    for seed in (0, 1):
        for beta in (0, 0.02, 0.2):
            make_run(tmp_path / "dial", seed, f"beta-{beta}")
        for size in (1_000_000, 4_000_000):
            make_run(tmp_path / "figure1", seed, str(size), parameters=size)
    plot.dial(tmp_path / "dial")
    plot.figure1(tmp_path / "figure1")
    assert "true utility of SFT" in (pictures / "dial.svg").read_text()
    assert "<!-- 4.00 -->" in (pictures / "figure1.svg").read_text()


def test_best_of_n(tmp_path, pictures, capsys):
    for seed in (0, 1):
        path = make_run(tmp_path / "best_of", seed, "n")
        rows = [dict(n=n, kl_formula=math.log(n) - (n - 1) / n, kl=0.3 * n, score=n / 10 + seed,
                     utility=0.5, kl_logprob=0.1 * n, utility_logprob=seed) for n in (2, 4, 8)]
        (path / "best_of.json").write_text(json.dumps(rows))
        make_run(tmp_path / "best_of", seed, "no-labels-2")
        make_run(tmp_path / "dial", seed, "beta-1")
    plot.best_of(tmp_path / "best_of")
    printed = capsys.readouterr().out
    row = "| 4 | 0.64 | 1.20 ± 0.00 | 0.90 ± 0.71 | 0.50 ± 0.00 | 0.40 ± 0.00 | 0.50 ± 0.71 |"
    assert row in printed
    picture = (pictures / "best_of.svg").read_text()
    for label in ("best of n by log-probability", "DPO", "PPO on log-probability", "greedy SFT"):
        assert f"<!-- {label} -->" in picture


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture
def html(copy, tmp_path, monkeypatch):
    for beta in ("0", "0.2"):
        make_run(copy / "experiments" / "dial", 0, f"beta-{beta}")
    monkeypatch.setattr("sys.argv", ["page.py", copy, tmp_path / "page.html"])
    page.main()
    return (tmp_path / "page.html").read_text()


def test_the_page_holds_the_numbers_and_answers_of_every_beta(html):
    """What a model says cannot end the JSON element."""
    text = html.split('type="application/json">')[1].split("</script>")[0]
    data = json.loads(text)
    assert [row["beta"] for row in data["dial"]] == ["0.2", "0"]
    assert data["dial"][0]["kl"] == [16, 0] and data["sft_utility"] == 0.25
    assert data["dial"][0]["answers"]["seed 0"][0] == ["Prompt 0?", "An answer </script>.", True]
    assert len(data["temperatures"]) == 9 and len(data["temperatures"][0]["answers"]) == 5
    assert len(data["candidates"]["texts"]) == len(data["candidates"]["log_ref"]) == 4


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_pages_equations_are_those_of_the_scripts(html):
    """Its click is a gradient step on eq. 1, its closed form that of DPO, eq. 4."""
    script = html.split("<script>")[1]
    functions = [script[script.index(f"function {name}"):].split("\n}\n")[0] + "\n}\n"
                 for name in ("clickStep", "closedForm")]
    ref, reward = torch.randn(4).log_softmax(0), torch.randn(4)
    program = ("const sigmoid = x => 1 / (1 + Math.exp(-x))\n" + "".join(functions)
               + f"console.log(JSON.stringify([clickStep({reward.tolist()}, 2, 0), "
               f"closedForm({ref.tolist()}, {reward.tolist()}, 0.3)]))")
    printed = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    stepped, optimal = json.loads(printed.stdout)
    r = reward.clone().requires_grad_()
    (-torch.nn.functional.logsigmoid(r[2] - r[0])).backward()
    assert stepped == approx((reward - r.grad).tolist(), abs=1e-5)
    expected = closed_form.closed_form(ref[None], reward[None], 0.3)[0].tolist()
    assert optimal == approx(expected, abs=1e-4)
