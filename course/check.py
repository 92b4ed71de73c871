"""Checks for those who change the course. tests/test_course.py does the same at a reduced size.

    python -m course.check                   all of the following
    python -m course.check --mistakes        every known mistake is named, every solution gets all
                                             points, at --seeds seeds
    python -m course.check --holes           fill the functions one by one: no test may fail
    python -m course.check --bugs            the tests that show each bug, for bugs.txt
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from course.bugs import BUGS, versions
from course.cases import evaluate_all
from course.grade import judge, mistaken_outputs
from course.handout import hand_out
from course.holes import HOLES, RECIPE, ROOT
from tools.flags import read_flags


@dataclass(frozen=True)
class Config:
    holes: bool = False            # fill the functions one by one
    bugs: bool = False             # run the student's tests with each bug
    mistakes: bool = False         # grade the solutions and the known mistakes
    seeds: int = 20                # of --mistakes


def run_tests(folder):
    """-> how many tests of a student's version pass, and the names of those that fail"""
    output = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], cwd=folder,
        env=os.environ | dict(OMP_NUM_THREADS="1"), capture_output=True, text=True).stdout
    n_passed = re.search(r"(\d+) passed", output)[1]
    return n_passed, re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", output, re.M)


def check_holes():
    for n in range(len(RECIPE) + 1):
        with tempfile.TemporaryDirectory() as place:
            hand_out(f"{place}/student", RECIPE[n:])
            n_passed, failed = run_tests(f"{place}/student")
        last = RECIPE[n - 1].name if n else "all empty"
        print(f"{last:18} {n_passed:>4} pass, {len(failed)} fail", *failed, flush=True)


def check_bugs():
    """Prints the `!` lines that each bug needs in bugs.txt."""
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "student"
            hand_out(folder, [])
            for path in (folder / "tests").iterdir():       # with the tests that are held back
                shutil.copy(ROOT / "tests" / path.name, path)
            (folder / bug.place).write_text(versions(bug)[1], "utf-8")
            _, failed = run_tests(folder)
        print(f"{bug.place}: {bug.explanation}")
        for name in sorted({test.split("[")[0] for test in failed}):
            print(f"! {name}", flush=True)


def check_mistakes(n_seeds):
    """A pass over all functions with 20 seeds takes about ten minutes."""
    unnamed = 0
    for hole in HOLES:
        for seed in range(n_seeds):
            fraction, feedback = judge(hole, evaluate_all(hole, hole.solved(), seed), seed)
            assert fraction == 1, f"{hole.name}, seed {seed}: {feedback}"
            for mistake, outputs in mistaken_outputs(hole, seed).items():
                fraction, feedback = judge(hole, outputs, seed)
                if fraction == 1 or not feedback.startswith(mistake.explanation):
                    unnamed += 1
                    print(f"{hole.name}, seed {seed}: not named: {mistake.explanation}")
        print(f"{hole.name:18} {n_seeds} seeds", flush=True)
    print(f"{unnamed} times a mistake was not named")


def main():
    config = read_flags(__doc__, Config)
    everything = not (config.mistakes or config.holes or config.bugs)
    if config.mistakes or everything:
        check_mistakes(config.seeds)
    if config.holes or everything:
        check_holes()
    if config.bugs or everything:
        check_bugs()


if __name__ == "__main__":
    main()
