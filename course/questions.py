"""Part 3: questions about the student's own run. Here figures are checked; a person reads reasons.

    python -m course.questions --grade ../submission   answers.json, out/ without *.pt -> points

A figure earns a point if it is that of the submitted run, and another one if correct runs have such
a figure (`RANGES`). answers.json is {"1": {"figure": 0.69, "reason": "..."}, ...}.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from course.sandbox import read_object, read_submitted, report
from tools.flags import check, read_flags


# Correct runs: seeds 0 to 4 of the recipe (8 and 9: seeds 0 to 2) lie well inside
RANGES = {2: (0.5, 4), 3: (0.62, 0.82), 4: (0.5, 1), 5: (0.02, 0.12), 6: (-0.08, 0.01),
          7: (-0.1, 0.2), 8: (4, 40), 9: (-2, 0.2), 10: (0.5, 1.21)}


@dataclass(frozen=True)
class Config:
    grade: str = ""                # the submitted folder
    results: str = ""              # also write Gradescope's results.json to this path


def read_lines(out, name):
    """-> the records of a file of JSON lines; the last one of a log is about the whole stage"""
    return [json.loads(line) for line in read_submitted(out, name, 2 ** 24).splitlines()]


def read_figures(out):
    """-> {question: figure}, the numbers of README.md"""
    results, log = read_object(out, "results.json"), read_lines(out, "metrics/ppo.jsonl")
    free_log = read_lines(out, "free/metrics/ppo.jsonl")
    best_of = json.loads(read_submitted(out, "best_of.json"))
    sft, ppo, ppo_ptx = results["sft"], results["ppo"], results["ppo_ptx"]
    gain_of_sft = sft["correct_07"] - sft["correct"]         # from temperature 1 to 0.7
    gain_of_ppo = ppo["correct_07"] - ppo["correct"]
    return {1: math.log(2), 2: log[-2]["kl"],
            3: read_lines(out, "metrics/reward.jsonl")[-1]["accuracy"],
            4: results["rm"]["reads_wrong"], 5: ppo["lm_loss"] - sft["lm_loss"],
            6: ppo_ptx["lm_loss"] - sft["lm_loss"], 7: gain_of_ppo - gain_of_sft,
            8: free_log[-2]["kl"], 9: free_log[-1]["utility"] - log[-1]["utility"],
            10: next(row["kl"] for row in best_of if row["n"] == 8)}


def find_fault(number, figures):
    """-> what a correct run has and this one has not, "" if nothing is known"""
    low, high = RANGES.get(number, (-math.inf, math.inf))
    if low <= figures[number] <= high:
        return ""
    return f"correct runs have {low} to {high}"


def judge(number, figures, answer):
    """-> points of 2, feedback"""
    value = figures[number]
    if type(value) not in (int, float) or not abs(value) < 1e9:              # nor nan
        return 0, "the run has no such figure"
    submitted = answer.get("figure") if isinstance(answer, dict) else None
    if type(submitted) not in (int, float) or not abs(submitted) < 1e9:
        return 0, "no figure"
    if abs(submitted - value) > 0.006 + 0.01 * abs(value):
        return 0, f"{submitted:.4g}, but in this run it is {value:.3f}"
    fault = find_fault(number, figures)
    if fault:
        return 1, f"{submitted:.4g} is that of the run, but {fault}: look for a bug"
    return 2, f"{submitted:.4g}"


def grade(config):
    answers, figures, error_text = read_object(config.grade, "answers.json"), {}, ""
    try:
        figures = read_figures(Path(config.grade) / "out")
    except Exception as error:                               # the submitted files may hold anything
        error_text = f"out/ cannot be read: {type(error).__name__}: {error}"
    rows = []
    for number in range(1, 11):
        points, feedback = 0, error_text
        if figures:
            points, feedback = judge(number, figures, answers.get(str(number)))
        rows.append((f"question {number}", points, 2, feedback))
    report(rows, config.results, "a person reads the reasons, one point each")


def main():
    config = read_flags(__doc__, Config)
    check(config.grade and Path(config.grade).is_dir(), "--grade must be a folder")
    grade(config)


if __name__ == "__main__":
    main()
