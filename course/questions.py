"""Part 3: questions about the student's own runs. Figures and choices are checked here, reasons are
read by a person.

    python -m course.questions grade ../submission     answers.json and out/ (no weights) -> points

Per question: a point for the figure of the submitted run, a point if that lies within what other
seeds found, a point for the reason. The run has to be one: its answers are judged anew by the true
utility. The questions stand in README.md, the sheet; answers.json is
{"1": {"figure": 0.69, "reason": "..."}, ...}.
"""

import json
import math
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

from course.words import check_folder, name_words, read_submitted, report
from data.world.text import make_prompts
from data.world.utility import utility
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config:
    what: str = ""                 # grade; may stand without its flag
    folder: str = ""               # what was handed in; may stand without its flag
    results: str = ""              # Gradescope's results.json, if one is wanted


# `within` is what six runs of three seeds found (of the experiments three), mean ± 4 deviations;
# None: it is exact. Two more seeds lie inside.
Question = namedtuple("Question", "right within")


# --- what a run says of itself --------------------------------------------------------------------


def read_log(out, stage):
    """The lines of a stage's log, the closing one at last."""
    text = read_submitted(out, f"metrics/{stage}.jsonl", 2 ** 24)
    return [json.loads(line) for line in text.splitlines()]


def read_results(out):
    return json.loads(read_submitted(out, "results.json"))


def find_log_2(out):
    return math.log(2)


def find_kl(out):
    return read_log(out, "ppo")[-2]["kl"]


def find_accuracy(out):
    return read_log(out, "reward")[-1]["accuracy_labels"]


def find_reading(out):
    return read_results(out)["rm"]["reads_wrong"]


def find_tax(out, name="ppo"):
    found = read_results(out)
    return found[name]["lm_loss"] - found["sft"]["lm_loss"]


def find_tax_of_ptx(out):
    return find_tax(out, "ppo_ptx")


def find_gain_of_cooling(out):
    found = read_results(out)
    return (found["sft"]["right_07"] - found["sft"]["right"]
            - found["ppo"]["right_07"] + found["ppo"]["right"])


def find_free_kl(out):
    return find_kl(f"{out}/free")


def find_free_gold(out):
    return read_log(f"{out}/free", "ppo")[-1]["gold"] - read_log(out, "ppo")[-1]["gold"]


def find_kl_of_best_of_8(out):
    return math.log(8) - 7 / 8


QUESTIONS = [Question(*row) for row in [           # in the order of the sheet
    (find_log_2, None),
    (find_kl, (0.1, 2.2)),
    (find_accuracy, (0.7, 0.82)),
    (find_reading, (0.9, 0.98)),
    (find_tax, (0.01, 0.13)),
    (find_tax_of_ptx, (-0.13, 0.02)),
    (find_gain_of_cooling, (-0.05, 0.35)),
    (find_free_kl, (0.4, 2.2)),
    (find_free_gold, (-0.4, 0.4)),
    (find_kl_of_best_of_8, None),
]]


# --- points ---------------------------------------------------------------------------------------


def doubt(out):
    """-> "", or why these are not the figures of a run: the answers are judged again."""
    results, given = read_results(out), {}
    for line in read_submitted(out, "answers.jsonl", 2 ** 24).splitlines():
        row = json.loads(line)
        given.setdefault(row["model"], []).append(row)
    if not {"sft", "ppo", "ppo_ptx", "dpo"} <= set(given):
        return "answers.jsonl lacks a model"
    asked = {p.text: p for p in make_prompts(min(1000, len(given["sft"])), "eval", results["seed"])}
    for name, rows in given.items():
        if {row["prompt"] for row in rows} != set(asked):
            return f"the prompts of {name} are not those of seed {results['seed']}"
        mean = sum(utility(asked[row["prompt"]], row["answer"], row["ended"])
                   for row in rows) / len(rows)
        if abs(mean - results[name]["gold"]) > 0.01:
            return (f"the answers of {name} are worth {mean:.2f}, results.json says "
                    f"{results[name]['gold']:.2f}")
    return ""


def judge(question, answer, out):
    """-> points of 2, what to say"""
    try:
        value = question.right(out)
    except (ValueError, LookupError, TypeError) as e:
        return 0, f"out/ does not tell: {e}"
    low, high = question.within or (value, value)
    usual = low <= value <= high
    given = answer.get("figure") if isinstance(answer, dict) else answer
    if type(given) not in (int, float) or not math.isfinite(given):
        return 0, "no figure"
    near = abs(given - value) <= 0.006 + 0.01 * abs(value)
    says = f"{given:.4g}; in this run it is {value:.3f}"
    return near + usual * near, says + (
        "" if usual else f", outside of {low} to {high}, what other seeds found: look for a bug")


def grade(config):
    out, rows = Path(config.folder) / "out", []
    try:
        answers = json.loads(read_submitted(config.folder, "answers.json"))
        why = "" if isinstance(answers, dict) else 'answers.json is to be {"1": {"figure": ...}}'
        why = why or doubt(out)
    except (ValueError, LookupError, TypeError, RecursionError) as e:
        why = f"{type(e).__name__}: {e}"
    for n, question in enumerate(QUESTIONS, 1):
        points, says = (0, why) if why else judge(question, answers.get(str(n)), out)
        rows.append((f"question {n}", points, 2, says))
    report(rows, config.results, f"and a point for each of {len(QUESTIONS)} reasons, by a person")


def main():
    name_words("what", "folder")
    config = read_flags(__doc__, Config)
    check(config.what == "grade", "python -m course.questions grade FOLDER")
    check_folder(config.folder, "name the folder that was handed in")
    grade(config)


if __name__ == "__main__":
    run(main)
