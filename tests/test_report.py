"""What is shown of finished runs, from files alone."""

import json
import shutil
import sys

import pytest

import report
from conftest import call


def test_a_report_says_again_what_evaluation_wrote(copy, capsys):
    results = json.loads((copy / "results.json").read_text())
    call(report, copy)
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("dpo "))
    assert row.split()[1] == f"{results['dpo']['gold']:.2f}"
    assert f"accuracy_gold: {results['rm']['accuracy_gold']:.1%}" in shown
    answers = report.read(copy / "answers.jsonl")
    first = [row for row in answers if row["prompt"] == answers[0]["prompt"]]
    assert len(first) == 6                                        # five models and the page
    for row in first:
        assert f"  {row['model']:14} {' / '.join(row['answer'].splitlines())}" in shown


def test_a_sample_of_each_kind_is_shown(capsys):
    rows = [dict(model=model, prompt=prompt, kind=kind, answer="Hi.", ended=True)
            for model in ("sft", "ppo") for prompt, kind in (("a?", 1), ("b?", 1), ("c?", 2))]
    report.print_samples(rows)
    shown = capsys.readouterr().out
    assert "a?" in shown and "c?" in shown and "b?" not in shown and shown.count("Hi.") == 4


def test_seeds_are_told_by_mean_spread_and_extremes(copy, capsys, monkeypatch):
    other = shutil.copytree(copy, copy.parent / "other")
    for folder, wins, right in ((copy, 0.7, 0.8), (other, 0.9, 0.6)):
        results = json.loads((folder / "results.json").read_text())
        results["ppo"]["win_gold"], results["rm"]["accuracy_gold"] = wins, right
        (folder / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(sys, "argv", ["report.py", "--seeds", f"{copy},{other}"])
    report.main()
    shown = capsys.readouterr().out
    assert "| 0.80 ± 0.14 |" in shown and "| 0.70 to 0.90 |" in shown
    assert "accuracy_gold: 70.0% ± 14.1%, lowest 60.0%" in shown


def test_seeds_with_other_models_are_told_by_what_they_share(copy, capsys, monkeypatch):
    other = shutil.copytree(copy, copy.parent / "other")
    results = json.loads((other / "results.json").read_text())
    del results["dpo"], results["seconds"]["dpo"], results["sft"]["score"]
    (other / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(sys, "argv", ["report.py", "--seeds", f"{copy}, {other},"])
    report.main()
    shown = capsys.readouterr().out
    assert "| PPO |" in shown and "| DPO |" not in shown and "'dpo'" not in shown
    sft = next(line for line in shown.splitlines() if line.startswith("| SFT |"))
    assert sft.split("|")[2].strip() and not sft.split("|")[3].strip()         # utility, score


def test_results_without_their_keys_are_one_clear_line(copy):
    for text in ("{}", "[1]", "3", '{"rm": {}}', "{"):
        (copy / "results.json").write_text(text)
        with pytest.raises(SystemExit, match="results.json: .*makes it"):
            call(report, copy)


@pytest.mark.parametrize("flags, named", [("--seeds out", "two folders"),
                                          ("--seeds out,nowhere", "results.json"),
                                          ("--out nowhere", "python eval.py --out nowhere")])
def test_a_folder_without_results_is_one_clear_line(monkeypatch, flags, named):
    monkeypatch.setattr(sys, "argv", ["report.py", *flags.split()])
    with pytest.raises(SystemExit) as e:
        report.main()
    assert named in str(e.value) and str(e.value).startswith("error: ")


def test_a_log_that_was_cut_is_read_up_to_there(tmp_path):
    path = tmp_path / "ppo.jsonl"
    assert report.read(path) == [] and report.last_line(path) == {}
    path.write_text('{"step": 0}\n{"step": -1, "seconds": 3}\n')
    assert report.last_line(path)["seconds"] == 3
    path.write_text('{"step": 0}\n{"step": -1, "sec')
    assert report.read(path) == [{"step": 0}] and report.last_line(path) == {}
