"""Checks for those who change the course, slower than tests/test_course.py.

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
from course.handout import hand_out
from course.holes import RECIPE, ROOT
from tools.flags import read_flags


@dataclass(frozen=True)
class Config:
    holes: bool = False            # fill the functions one by one
    bugs: bool = False             # run the student's tests with each bug


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


def main():
    config = read_flags(__doc__, Config)
    if config.holes:
        check_holes()
    if config.bugs:
        check_bugs()


if __name__ == "__main__":
    main()
