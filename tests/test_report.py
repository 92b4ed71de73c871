"""What is shown of finished runs, from files alone."""

import json
import shutil
import sys

import pytest

from conftest import call
from tools import report
from tools.results import NAMES, read_closing, read_lines, read_results


def test_a_report_says_again_what_evaluation_wrote(copy, capsys):
    results = json.loads((copy / "results.json").read_text())
    call(report, copy)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    column = next(line for line in lines if line.split()[-1:] == ["dpo"]).split().index("dpo")
    for key, label in (("right", "right, temperature 1"), ("gold", "true utility")):
        row = next(line for line in lines if line.startswith(label + "  "))
        cells = row.removeprefix(label).replace(" +- ", "+-").split()
        assert cells[column].split("+-")[0] == f"{results['dpo'][key]:.2f}"
        assert cells[column].split("+-")[1:] in (
            [f"{results['intervals']['dpo'][key]:.2f}"], [])                   # [] if it is 0
    assert lines[1].split() == list(NAMES) and lines[2].startswith("right, temperature 1 ")
    assert lines[3].startswith("right, temperature 0.7 ") and lines[4].startswith("true utility ")
    for kind, share in results["ppo"]["right_by_kind"].items():
        row = next(line for line in lines if line.startswith(kind + " "))
        assert f"{share:.2f}" in row
    assert f"its wrong variant                   {results['rm']['reads_wrong']:.1%}" in shown
    assert f"accuracy_gold: {results['rm']['accuracy_gold']:.1%}" in shown
    assert f"length_slope: {results['rm']['length_slope']:.2f}\n" in shown         # no share
    answers = read_lines(copy / "answers.jsonl")
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


def test_the_most_frequent_answer_of_a_model_is_told_with_its_count(capsys):
    said = [("Hi.", True), ("No.", False), ("Hi.", False), ("Hi.", False)]
    rows = [dict(model=model, prompt="a?", kind=1, answer=answer, ended=True, right=right)
            for model in ("base", "ppo") for answer, right in said]
    report.print_frequent(rows)
    shown = capsys.readouterr().out
    assert shown == "  ppo            Hi.  (at 3 of 4 prompts, right at 1)\n"


def test_what_was_not_counted_is_a_dash(copy, capsys, monkeypatch):
    other = shutil.copytree(copy, copy.parent / "other")
    path = other / "results.json"
    results = json.loads(path.read_text())
    for name in ("sft", "ppo"):
        results[name].pop("invented", None)
    results["ppo"]["right_by_kind"].pop("open qa", None)
    results["rm"].pop("reads_frequent", None)
    path.write_text(json.dumps(results))
    report.print_table(read_results(other))
    assert " - " in capsys.readouterr().out
    report.print_seeds([copy, other])
    assert "reads_frequent" not in capsys.readouterr().out


def test_results_without_right_answers_are_shown_as_far_as_they_go(copy, capsys):
    path = copy / "results.json"
    results = json.loads(path.read_text())
    for name in NAMES:
        for key in ("right", "right_07", "right_by_kind", "undeserved"):
            del results[name][key], results["intervals"][name][key]
    results["rm"] = {key: v for key, v in results["rm"].items() if not key.startswith("reads_")}
    path.write_text(json.dumps(results))
    report.print_table(read_results(copy))
    report.print_seeds([copy, copy])
    shown = capsys.readouterr().out
    assert "true utility" in shown and "right" not in shown and "careful" not in shown


def test_kinds_are_told_over_seeds(copy, capsys):
    other = shutil.copytree(copy, copy.parent / "other")
    for folder, share in ((copy, 0.5), (other, 0.9)):
        results = json.loads((folder / "results.json").read_text())
        results["ppo"]["right_by_kind"] = {"chat": share}
        (folder / "results.json").write_text(json.dumps(results | {"base": results["ppo"]}))
    report.print_seeds([copy, other])
    shown = capsys.readouterr().out
    assert "| chat | 0.70 ± 0.28 |" in shown and "| chat | 0.50 to 0.90 |" in shown
    assert shown.index("| right, temperature 1 |") < shown.index("| true utility |")


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
    rows = [[cell.strip() for cell in line.split("|")] for line in shown.splitlines()]
    sft = rows[0].index("SFT")
    gold, score = (next(row for row in rows if row[1:2] == [label])
                   for label in ("true utility", "score"))
    assert gold[sft] and not score[sft] and score[sft + 1]


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
    path = tmp_path / "metrics" / "ppo.jsonl"
    assert read_lines(path) == [] and read_closing(tmp_path) == {}
    path.parent.mkdir()
    path.write_text('{"step": 0}\n{"step": -1, "seconds": 3}\n')
    (path.parent / "dpo.jsonl").write_text("")
    assert read_closing(tmp_path) == {"ppo": {"step": -1, "seconds": 3}}
    path.write_text('{"step": 0}\n{"step": -1, "sec')
    assert read_lines(path) == [{"step": 0}] and read_closing(tmp_path) == {}


def test_a_log_that_is_damaged_before_its_end_is_named_by_its_line(tmp_path):
    path = tmp_path / "metrics" / "ppo.jsonl"
    path.parent.mkdir()
    for text in ('{"step": 0}\n{"st\n{"step": 1}\n', '{"step": 0}\n[1]\n{"step": 1}\n',
                 '{"step": 0}\n{"step": }\n'):
        path.write_text(text)
        with pytest.raises(SystemExit, match="^error: .*ppo.jsonl:2 is damaged"):
            read_closing(tmp_path)
    path.write_bytes(b'{"step": 0}\n\xff\n')
    with pytest.raises(SystemExit, match="^error: .*ppo.jsonl is damaged"):
        read_closing(tmp_path)
