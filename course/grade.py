"""Part 1: points for the functions of a submission, on random inputs that are drawn for this run.

    python -m course.grade --submission ../submission

Each function runs in a process of its own among solved functions, so a mistake in one costs nothing
in another. If a wrong function returns the same as a known mistake, the feedback names the mistake.
"""

import functools
import os
import pwd
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from course.cases import CASES, evaluate_all, find_difference
from course.holes import LATER, RECIPE
from course.sandbox import read_submitted, report, run_student
from course.surgery import make_mistake, read_changes
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    submission: str = ""           # the submitted folder
    results: str = ""              # also write Gradescope's results.json to this path
    seed: int = -1                 # of the inputs; -1 draws one and prints it
    later: bool = False            # grade the second assignment
    user: str = ""                 # run the functions as this user; needs root, see instructor.md


@functools.cache
def mistaken_outputs(hole, seed):
    """-> {mistake: outputs} for the known mistakes of a function"""
    outputs = {}
    for mistake in read_changes("mistakes.txt"):
        if mistake.place == hole.name:
            outputs[mistake] = evaluate_all(hole, make_mistake(mistake, hole.solved()), seed)
    return outputs


def name_mistake(hole, outputs, seed):
    """-> the explanation of the known mistake with these outputs, or else a hint"""
    for mistake, mistaken in mistaken_outputs(hole, seed).items():
        if not any(find_difference(mistaken[case], outputs.get(case)) for case in mistaken):
            return mistake.explanation
    return f"hint: {hole.hint}"


def judge(hole, outputs, seed):
    """-> fraction of the points, feedback. outputs: {case: ...} or an error message"""
    if not isinstance(outputs, dict):
        return 0.0, shorten(outputs)
    passed, failed = [], []
    for case, expected in evaluate_all(hole, hole.solved(), seed).items():
        difference = find_difference(expected, outputs.get(case, "no result"))
        if difference:
            failed.append((case, shorten(difference)))
        else:
            passed.append(case)
    if not failed:
        return 1.0, "correct"
    if all(difference.startswith("NotImplementedError") for _, difference in failed):
        return 0.0, "not written yet"
    feedback = [name_mistake(hole, outputs, seed)]
    feedback += [f"wrong in the case '{case}': {difference}" for case, difference in failed]
    feedback += [f"correct in the case '{case}'" for case in passed]
    return len(passed) / len(CASES[hole.name]), "\n".join(feedback)


def shorten(text):
    return " ".join(str(text).split())[:200]


def run_submitted(hole, config, seed):
    """-> {case: outputs}, or an error message"""
    try:
        source = read_submitted(config.submission, hole.file)
    except ValueError as error:
        return str(error)
    return run_student(hole, source, seed, user=config.user)


def grade(config, seed, holes):
    """-> rows of the report"""
    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(lambda hole: run_submitted(hole, config, seed), holes))
    rows = []
    for hole, hole_outputs in zip(holes, outputs):
        try:
            fraction, feedback = judge(hole, hole_outputs, seed)
        except Exception as error:                # a forged result that cannot be compared
            fraction, feedback = 0.0, f"its result cannot be compared: {shorten(error)}"
        rows.append((f"{hole.file} {hole.name}", fraction * hole.points, hole.points, feedback))
    return rows


def has_user(name):
    return name in [entry.pw_name for entry in pwd.getpwall()]


def main():
    config = read_flags(__doc__, Config)
    check(Path(config.submission).is_dir() and config.submission, "--submission must be a folder")
    check(not config.user or os.geteuid() == 0, "--user needs root")
    check(not config.user or has_user(config.user), f"--user {config.user}: there is no such user")
    torch.set_num_threads(1)
    seed = config.seed if config.seed >= 0 else secrets.randbelow(10 ** 6)
    rows = grade(config, seed, LATER if config.later else RECIPE)
    report(rows, config.results, f"--seed {seed} repeats these inputs")


if __name__ == "__main__":
    main()
