"""Tables of finished runs, from their files alone."""

import json
import shutil
import sys

import pytest

from conftest import call
from report import table
from report.table import (MODELS, make_tables, read_last_log_lines, read_lines, read_results,
                          write_evaluation)


def rows_of(text):
    """Printed Markdown -> lists of cells"""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def edit_results(folder, model, **values):
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results[model] |= values
    path.write_text(json.dumps(results))


def test_the_table_shows_values_with_intervals_and_the_first_prompt_of_every_model(copy, capsys):
    edit_results(copy, "ppo", utility=1.25)
    call(table, copy)
    shown = capsys.readouterr().out
    interval = read_results(copy)["intervals"]["ppo"]["utility"]
    [line] = [line for line in shown.splitlines() if line.startswith("true utility, temperature 1")]
    assert f"1.25 ± {interval:.2f}" in line and line.count("±") == len(MODELS)
    answers = [json.loads(line) for line in open(copy / "answers.jsonl", encoding="utf-8")]
    samples = [answer for answer in answers if answer["prompt"] == answers[0]["prompt"]]
    assert len(samples) == len(MODELS)
    for answer in samples:
        assert answer["answer"].replace("\n", " / ") in shown


def test_what_could_not_be_counted_is_a_dash_or_has_no_row(capsys):
    results = dict(base=dict(utility=1.0), sft=dict(utility=2.0, kl=0.0), rm={})
    tables = make_tables(results, {})
    assert tables == [[["", "base", "SFT"], ["true utility, temperature 1", "1.00", "2.00"],
                       ["KL to SFT, nats", "", "0.00"]]]
    table.print_table(tables[0])
    assert capsys.readouterr().out.splitlines()[2].split()[-2:] == ["-", "0.00"]


def test_kinds_of_prompts_and_reward_models_have_tables_of_their_own():
    results = dict(sft=dict(correct_by_kind=dict(chat=0.5, extract=1.0)), rm=dict(reads_wrong=0.9),
                   dpo_implicit=dict(reads_wrong=0.8))
    by_kind, rewards = make_tables(results, {})
    assert by_kind == [["correct, greedy", "SFT"], ["chat", "0.50"], ["extract", "1.00"]]
    assert rewards == [["fraction of pairs", "reward model", "DPO, implicit"],
                       ["careful above wrong variant", "0.90", "0.80"]]


def test_seeds_are_summarised_by_mean_and_standard_deviation(copy, capsys):
    """0.7 and 0.9 have the mean 0.8 and the standard deviation sqrt(0.02) = 0.14."""
    other = shutil.copytree(copy, copy.parent / "other")
    for folder, share in ((copy, 0.7), (other, 0.9)):
        for model in ("sft", "ppo"):
            edit_results(folder, model, correct=share, correct_by_kind=dict(chat=share),
                         content_by_kind=dict(chat=share))
        edit_results(folder, "rm", accuracy_labels=share)
    call(table, copy, f"--seeds {copy},{other}")
    shown = capsys.readouterr().out
    rows = {row[0]: row for row in rows_of(shown)}
    ppo = rows_of(shown)[0].index("PPO")
    assert rows["correct, temperature 1"][ppo] == "0.80 ± 0.14" == rows["chat"][ppo]
    assert rows["agrees with the label"][1] == "0.80 ± 0.14"
    assert "runs: 2; seconds: base" in shown


def test_one_run_is_shown_with_its_intervals(copy, capsys):
    """The spread is half of a 95 % interval over the answers."""
    edit_results(copy, "sft", correct=0.8)
    results = read_results(copy)
    results["intervals"]["sft"]["correct"] = 0.26
    (copy / "results.json").write_text(json.dumps(results))
    call(table, copy, f"--seeds {copy}")
    rows = rows_of(capsys.readouterr().out)
    [correct] = [row for row in rows if row[0] == "correct, temperature 1"]
    assert correct[rows[0].index("SFT")] == "0.80 ± 0.26"


def test_seeds_show_only_what_all_runs_have(copy, capsys):
    other = shutil.copytree(copy, copy.parent / "other")
    results = read_results(other)
    del results["dpo"], results["sft"]["score"]
    (other / "results.json").write_text(json.dumps(results))
    call(table, copy, f"--seeds {copy},{other}")
    rows = rows_of(capsys.readouterr().out)
    assert "PPO" in rows[0] and "DPO" not in rows[0]
    [score] = [row for row in rows if row[0] == "score"]
    assert score[rows[0].index("SFT")] == "" and "±" in score[rows[0].index("PPO")]


@pytest.mark.parametrize("flags, message", [
    ("--seeds out,nowhere", "results.json not found"),
    ("--out nowhere", "run `python eval.py --out nowhere` first")])
def test_a_folder_without_results_is_one_clear_line(monkeypatch, tmp_path, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py", *flags.split()])
    with pytest.raises(SystemExit) as error:
        table.main()
    assert str(error.value).startswith("error: ") and message in str(error.value)


def test_seconds_and_label_accuracies_are_those_of_finished_stages(tmp_path):
    (tmp_path / "metrics").mkdir()
    for stage, lines in dict(reward=[dict(step=0), dict(step=-1, seconds=3, accuracy=0.7)],
                             compare=[dict(step=-1, seconds=2, agreement=0.73)],
                             ppo=[dict(step=0)], dpo=[]).items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics" / f"{stage}.jsonl").write_text(text)
    assert read_last_log_lines(tmp_path) == (dict(reward=3, compare=2),
                                            dict(accuracy_labels=0.7, agreement=0.73))


def test_answers_at_lower_temperatures_stand_with_their_prompt(tmp_path):
    def answers(suffix):
        return [dict(prompt=prompt, answer=f"{prompt}{suffix}", ended=True, correct=False)
                for prompt in ("a", "b")]
    write_evaluation(tmp_path, {}, {"sft": {"temperature 1": answers(""), "greedy": answers("0"),
                                            "temperature 0.7": answers("7")}})
    for line in read_lines(tmp_path / "answers.jsonl"):
        cooler = {temperature: x["answer"] for temperature, x in line["cooler"].items()}
        assert cooler == {"0.7": line["prompt"] + "7", "0": line["prompt"] + "0"}
