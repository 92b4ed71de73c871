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

from course.bugs import BUGS
from course.handout import hand_out
from course.holes import RECIPE, ROOT
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    holes: bool = False            # fill the functions one by one
    bugs: bool = False             # run the student's tests with each bug


def run_tests(folder):
    """-> the sets of tests of a student's version that pass, and that fail"""
    output = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests"], cwd=folder,
        env=os.environ | dict(OMP_NUM_THREADS="1"), capture_output=True, text=True).stdout
    passed = set(re.findall(r"^(tests/\S+).* PASSED", output, re.M))
    return passed, set(re.findall(r"^(tests/\S+).* (?:FAILED|ERROR)", output, re.M))


def check_holes():
    passed_before = set()
    with tempfile.TemporaryDirectory() as place:
        for n in range(len(RECIPE) + 1):
            folder = Path(place) / str(n)
            hand_out(folder, RECIPE[n:])
            passed, failed = run_tests(folder)
            last = RECIPE[n - 1].name if n else "all empty"
            print(f"{last:18} {len(passed - passed_before):4} more pass, "
                  f"{len(passed_before - passed)} no longer, {len(failed)} fail", *failed,
                  flush=True)
            passed_before = passed


def check_bugs():
    """Prints the `!` lines that each bug needs in bugs.txt."""
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "student"
            hand_out(folder, [])
            for path in (folder / "tests").iterdir():       # with the tests that are held back
                shutil.copy(ROOT / "tests" / path.name, path)
            (folder / bug.file).write_text(bug.source(), encoding="utf-8")
            _, failed = run_tests(folder)
        print(f"{bug.file}: {bug.symptom}")
        for name in sorted({test.removeprefix("tests/").split("[")[0] for test in failed}):
            print(f"! {name}", flush=True)


def main():
    config = read_flags(__doc__, Config)
    check(config.holes or config.bugs, "give --holes or --bugs")
    if config.holes:
        check_holes()
    if config.bugs:
        check_bugs()


if __name__ == "__main__":
    main()
