"""Part 3: questions about the student's own run. Figures are checked here; a person reads the
reasons.

    python -m course.questions --grade ../submission   answers.json, out/ without *.pt -> points
    python -m course.questions --show out-1            the figures of a finished run

A figure earns a point if it is that of the submitted run and another one if it is in the usual
range. The answers of the run are scored again by the true utility, so that results.json cannot be
invented. The questions are in README.md; answers.json is
{"1": {"figure": 0.69, "reason": "..."}, ...}.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from course.sandbox import read_submitted, report
from data.world.text import make_prompts
from data.world.utility import utility
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    grade: str = ""                # the submitted folder
    show: str = ""                 # the folder of a finished run
    results: str = ""              # also write Gradescope's results.json to this path


# --- the figures of a run -------------------------------------------------------------------------


def read_log(out, stage):
    """The lines of a log; the last one, of step -1, is about the finished stage."""
    text = read_submitted(out, f"metrics/{stage}.jsonl", max_bytes=2 ** 24)
    return [json.loads(line) for line in text.splitlines()]


def read_results(out):
    return json.loads(read_submitted(out, "results.json"))


def read_figures(out):
    """The figures in the order of README.md; None where experiment 1 was not run."""
    results, log = read_results(out), read_log(out, "ppo")
    sft, ppo, ppo_ptx = results["sft"], results["ppo"], results["ppo_ptx"]
    gain_of_sft = sft["correct_07"] - sft["correct"]         # from temperature 1 to 0.7
    gain_of_ppo = ppo["correct_07"] - ppo["correct"]
    free_kl = free_utility = None
    if (out / "free").is_dir():
        free_log = read_log(out / "free", "ppo")
        free_kl = free_log[-2]["kl"]
        free_utility = free_log[-1]["utility"] - log[-1]["utility"]
    return [math.log(2), log[-2]["kl"], read_log(out, "reward")[-1]["accuracy"],
            results["rm"]["reads_wrong"], ppo["lm_loss"] - sft["lm_loss"],
            ppo_ptx["lm_loss"] - sft["lm_loss"], gain_of_sft - gain_of_ppo, free_kl, free_utility,
            math.log(8) - 7 / 8]


# A run outside these ranges probably has a bug. They are wide, to be narrowed with the figures of
# your own runs (--show). None: the figure is the same in every run.
USUAL_RANGES = [None, (0.05, 20), (0.65, 0.85), (0.45, 1), (-0.05, 0.5), (-0.2, 0.15), (-0.1, 0.4),
                (0.2, 80), (-4, 1), None]


# --- points ---------------------------------------------------------------------------------------


def find_doubt(out):
    """-> why these are not the figures of a run, "" if they may be"""
    results, utilities = read_results(out), {}
    prompts = {prompt.text: prompt for prompt in make_prompts(1000, "eval", results["seed"])}
    for line in read_submitted(out, "answers.jsonl", max_bytes=2 ** 24).splitlines():
        record = json.loads(line)
        if record["prompt"] not in prompts:
            return f"an answer is to a prompt that seed {results['seed']} does not have"
        value = utility(prompts[record["prompt"]], record["answer"], record["ended"])
        utilities.setdefault(record["model"], []).append(value)
    for name in ("sft", "ppo", "ppo_ptx", "dpo"):
        if name not in utilities:
            return f"answers.jsonl has no answers of {name}"
        mean = sum(utilities[name]) / len(utilities[name])
        if abs(mean - results[name]["utility"]) > 0.01:
            return (f"the answers of {name} have a utility of {mean:.2f}, results.json says "
                    f"{results[name]['utility']:.2f}")
    return ""


def judge(value, usual_range, answer):
    """-> points of 2, feedback"""
    submitted = answer.get("figure") if isinstance(answer, dict) else None
    if value is None:
        return 0, "out/free is missing"
    if type(submitted) not in (int, float) or not math.isfinite(submitted):
        return 0, "no figure"
    if abs(submitted - value) > 0.006 + 0.01 * abs(value):
        return 0, f"{submitted:.4g}, but in this run it is {value:.3f}"
    if usual_range and not usual_range[0] <= value <= usual_range[1]:
        return 1, (f"{submitted:.4g} is that of the run, but it should be between "
                   f"{usual_range[0]} and {usual_range[1]}: look for a bug")
    return 2, f"{submitted:.4g}"


def grade(config):
    out = Path(config.grade) / "out"
    answers, figures = {}, [None] * len(USUAL_RANGES)
    try:
        answers = json.loads(read_submitted(config.grade, "answers.json"))
        doubt = find_doubt(out) if isinstance(answers, dict) else "answers.json is not an object"
        figures = read_figures(out)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        doubt = f"{type(error).__name__}: {error}"
    rows = []
    for i, (value, usual_range) in enumerate(zip(figures, USUAL_RANGES)):
        points, feedback = 0, doubt
        if not doubt:
            points, feedback = judge(value, usual_range, answers.get(str(i + 1)))
        rows.append((f"question {i + 1}", points, 2, feedback))
    report(rows, config.results, "a person reads the reasons, one point each")


def main():
    config = read_flags(__doc__, Config)
    if config.show:
        for i, value in enumerate(read_figures(Path(config.show))):
            print(f"{i + 1:2} {value}  usual {USUAL_RANGES[i]}")
    else:
        check(config.grade and Path(config.grade).is_dir(), "--grade must be a folder")
        grade(config)


if __name__ == "__main__":
    main()
