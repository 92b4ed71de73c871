"""Part 3: questions about the student's own run. Here figures are checked; a person reads reasons.

    python -m course.questions --grade ../submission   answers.json, out/ without *.pt -> points

A figure earns a point if it is that of the submitted run, and another one if the run has what every
correct run has (`find_fault`). answers.json is {"1": {"figure": 0.69, "reason": "..."}, ...}.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from course.sandbox import read_object, read_submitted, report
from tools.flags import check, read_flags


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
    sft, ppo, ppo_ptx = results["sft"], results["ppo"], results["ppo_ptx"]
    gain_of_sft = sft["correct_07"] - sft["correct"]         # from temperature 1 to 0.7
    gain_of_ppo = ppo["correct_07"] - ppo["correct"]
    return {1: math.log(2), 2: log[-2]["kl"],
            3: read_lines(out, "metrics/reward.jsonl")[-1]["accuracy"],
            4: results["rm"]["reads_wrong"], 5: ppo["lm_loss"] - sft["lm_loss"],
            6: ppo_ptx["lm_loss"] - sft["lm_loss"], 7: gain_of_sft - gain_of_ppo,
            8: free_log[-2]["kl"], 9: free_log[-1]["utility"] - log[-1]["utility"],
            10: math.log(8) - 7 / 8}


def find_fault(number, figures):
    """-> what a correct run has and this one has not, "" if nothing is known"""
    if number == 2 and figures[2] <= 0:
        return "a KL divergence is positive"
    if number == 3 and figures[3] <= 0.5:
        return "a reward model predicts more than half of the labels"
    if number == 6 and figures[6] >= figures[5]:
        return "PPO-ptx has a smaller tax than PPO"
    if number == 8 and figures[8] <= figures[2]:
        return "the KL is larger without a penalty"
    return ""


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
