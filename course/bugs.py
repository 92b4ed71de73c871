"""Part 2: silent bugs. The program runs and its log looks normal, but something is not learned.

    python -m course.bugs --make ../bugs           ../bugs/1 to ../bugs/10, one bug in each
    python -m course.bugs --grade ../submission    bugs.json and test_bugs.py -> points

A student submits bugs.json, {"1": "ppo.py:196", ...}, file and line of each bug (one point), and
test_bugs.py, whose test_bug_1 to test_bug_10 pass on the correct program and fail on their bug (two
points).
"""

import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from course.holes import ROOT
from course.rewrite import rewrite
from course.sandbox import copy_project, read_object, read_submitted, report, run_limited
from course.surgery import make_change, read_changes
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    make: str = ""                 # the new folder of ten programs
    grade: str = ""                # the submitted folder
    seed: int = 0                  # orders the bugs, writes the programs; same for --make, --grade
    results: str = ""              # also write Gradescope's results.json to this path
    user: str = ""                 # run the tests as this user; needs root, see instructor.md


BUGS = read_changes("bugs.txt")
HELD_BACK = {}              # {test file: names of the tests that would show a bug}
for bug in BUGS:
    for test in bug.tests:
        HELD_BACK.setdefault(test.split("::")[0], set()).add(test.split("::")[1])


def versions(bug):
    """-> the correct text of the bug's file, and the one with the bug"""
    source = (ROOT / bug.place).read_text(encoding="utf-8")
    return source, make_change(bug, source)


def rewritten_versions(bug, seed):
    """-> the same two, written as in the student's program"""
    return [rewrite(text, seed) for text in versions(bug)]


def number_bugs(seed):
    """-> {"1": bug, ...}"""
    bugs = random.Random(f"bugs {seed}").sample(BUGS, len(BUGS))
    return {str(n): bug for n, bug in enumerate(bugs, 1)}


def write_program(folder, file, text, seed):
    """The scripts, data/ and tools/, written differently (rewrite.py), with this text in a file."""
    copy_project(folder, "tests", "course", "docs", "experiments", "later", "*.md")
    for path in folder.rglob("*.py"):
        path.write_text(rewrite(path.read_text("utf-8"), seed), "utf-8")
    (folder / file).write_text(text, "utf-8")


def changed_lines(bug, seed):
    """Line numbers that count as the place of the bug: the wrong line and its neighbours."""
    correct, wrong = [text.splitlines() for text in rewritten_versions(bug, seed)]
    changed = next(i for i, line in enumerate(correct) if line != wrong[i])
    return range(changed, changed + 3)


def judge_line(bug, answer, seed):
    """-> points of 1, feedback"""
    if answer in [f"{bug.place}:{line_number}" for line_number in changed_lines(bug, seed)]:
        return 1, "this is the line"
    return 0, "this is not the line"


def run_test(program, name, user):
    """pytest's exit status: 0 passed, 1 failed, more: did not run; None if it takes too long"""
    arguments = ["-q", "-p", "no:cacheprovider", f"test_bugs.py::{name}"]
    code = f"import pytest, sys; sys.exit(pytest.main({arguments!r}))"
    return run_limited(code, program, 60, user)


def judge_test(number, bug, test_file, folder, seed, user=""):
    """-> points of 2, feedback"""
    name = f"test_bug_{number}"
    if f"def {name}(" not in test_file:
        return 0, f"no {name}"
    statuses = []
    for version, text in zip(("correct", "wrong"), rewritten_versions(bug, seed)):
        program = folder / f"{number}-{version}"
        write_program(program, bug.place, text, seed)
        (program / "test_bugs.py").write_text(test_file, encoding="utf-8")
        statuses.append(run_test(program, name, user))
    if statuses[0] == 1:
        return 0, "the test fails on the correct program"
    if statuses[0] != 0:
        return 0, "the test does not run on the correct program"
    if statuses[1] != 1:
        return 0, "the test does not fail on the program with the bug"
    return 2, "the test tells the programs apart"


def grade(config):
    answers, test_file = read_object(config.grade, "bugs.json"), ""
    try:
        test_file = read_submitted(config.grade, "test_bugs.py")
    except ValueError as error:
        print(error)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)                             # for --user

        def judge(item):
            number, bug = item
            seed = f"{config.seed} {number}"
            points, feedback = judge_line(bug, answers.get(number), seed)
            more, test_feedback = judge_test(number, bug, test_file, Path(folder), seed,
                                             config.user)
            return f"bug {number}", points + more, 3, f"{feedback}; {test_feedback}"
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(judge, number_bugs(config.seed).items()))
    report(rows, config.results, "please read test_bugs.py: does each test say why it fails?")


def main():
    config = read_flags(__doc__, Config)
    if config.grade:
        check(Path(config.grade).is_dir(), "--grade must be a folder")
        return grade(config)
    check(config.make and not Path(config.make).exists(), "--make must be a new folder")
    for number, bug in number_bugs(config.seed).items():
        seed = f"{config.seed} {number}"
        write_program(Path(config.make) / number, bug.place, rewritten_versions(bug, seed)[1], seed)
    print(f"{config.make}: {len(BUGS)} programs, each with a bug")


if __name__ == "__main__":
    main()
