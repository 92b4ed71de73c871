"""Part 2: silent bugs. The program runs and its log looks normal, but something is not learned.

    python -m course.bugs --make ../bugs           ../bugs/1 to ../bugs/10, one bug in each
    python -m course.bugs --grade ../submission    bugs.json and test_bugs.py -> points

A student submits bugs.json, {"1": "ppo.py:196", ...}, the file and line of each bug, and
test_bugs.py with test_bug_1 to test_bug_10; each passes on the correct program and fails on its
bug. The line earns one point, the test two. --seed numbers the bugs in another order.
"""

import json
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from course.holes import ROOT
from course.sandbox import read_submitted, report, run_limited
from course.surgery import read_records, replace_once
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    make: str = ""                 # the new folder of ten programs
    grade: str = ""                # the submitted folder
    seed: int = 0                  # numbers the bugs; the same for --make and --grade
    results: str = ""              # also write Gradescope's results.json to this path
    user: str = ""                 # run the tests as this user; needs root, see instructor.md
    limit: int = 60                # seconds of processor time per test


class Bug(NamedTuple):
    file: str
    correct: str            # lines of the solved file
    wrong: str              # lines that replace them
    symptom: str
    tests: list             # tests of the project that fail, "test_x.py::test_y"

    def source(self):
        """The text of the file with the bug."""
        return replace_once(self.solved(), self.correct, self.wrong)

    def solved(self):
        return (ROOT / self.file).read_text(encoding="utf-8")


def read_bugs():
    bugs = []
    for file, symptom, lines in read_records("bugs.txt"):
        bugs.append(Bug(file, "\n".join(lines["-"]), "\n".join(lines["+"]), symptom, lines["!"]))
    return bugs


def collect_tests(bugs):
    """-> {test file: names of the tests that would show a bug}; the handout leaves them out"""
    tests = {}
    for bug in bugs:
        for test in bug.tests:
            file, name = test.split("::")
            tests.setdefault(file, set()).add(name)
    return tests


BUGS = read_bugs()
HELD_BACK = collect_tests(BUGS)
IGNORED = ("out*", ".git", ".ci", ".venv", "__pycache__", ".pytest_cache", "*.pyc", "tests",
           "course", "docs", "experiments", "later", "samples", "README.md")


def copy_program(folder, file=None, text=None):
    """The scripts, data/ and tools/, with another text in one file."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*IGNORED))
    if file:
        (folder / file).write_text(text, encoding="utf-8", newline="\n")


def number_bugs(seed):
    """-> {"1": bug, ...}"""
    bugs = list(BUGS)
    if seed:
        random.Random(f"bugs {seed}").shuffle(bugs)
    return {str(n): bug for n, bug in enumerate(bugs, 1)}


# --- points ---------------------------------------------------------------------------------------


def changed_lines(bug):
    """Line numbers that count as the place of the bug: the wrong line and its neighbours."""
    solved, mutated = bug.solved().splitlines(), bug.source().splitlines()
    changed = next(i for i, line in enumerate(solved) if line != mutated[i])
    return range(changed, changed + 3)


def judge_line(bug, answer):
    """-> points of 1, feedback"""
    for line_number in changed_lines(bug):
        if answer == f"{bug.file}:{line_number}":
            return 1, "this is the line"
    return 0, "this is not the line"


def run_tests(program, tests, config):
    """pytest's exit status: 0 if all pass, 1 if some fail, more if they do not run, None if they
    take too long"""
    if config.user:
        program.parent.chmod(0o755)
        program.chmod(0o755)
    arguments = ["-q", "-x", "-p", "no:cacheprovider", *tests]
    return run_limited(f"import pytest, sys; sys.exit(pytest.main({arguments!r}))", program,
                       config.limit, config.user)


def judge_test(number, bug, test_file, folder, config):
    """-> points of 2, feedback"""
    name = f"test_bug_{number}"
    if f"def {name}(" not in test_file:
        return 0, f"no {name}"
    status = {}
    for version, text in (("correct", bug.solved()), ("bug", bug.source())):
        program = folder / f"{number}-{version}"
        copy_program(program, bug.file, text)
        (program / "test_bugs.py").write_text(test_file, encoding="utf-8")
        status[version] = run_tests(program, [f"test_bugs.py::{name}"], config)
    if status["correct"] == 1:
        return 0, "the test fails on the correct program"
    if status["correct"] != 0:
        return 0, "the test does not run on the correct program"
    if status["bug"] != 1:
        return 0, "the test does not fail on the program with the bug"
    return 2, "the test tells the programs apart"


def judge(number, bug, answers, test_file, folder, config):
    """-> a row of the report"""
    line_points, line_feedback = judge_line(bug, answers.get(number))
    test_points, test_feedback = judge_test(number, bug, test_file, folder, config)
    return f"bug {number}", line_points + test_points, 3, f"{line_feedback}; {test_feedback}"


def read_answers(folder):
    """-> the contents of bugs.json and test_bugs.py, empty if they cannot be read"""
    answers, test_file = {}, ""
    try:
        answers = json.loads(read_submitted(folder, "bugs.json"))
    except (ValueError, RecursionError) as error:
        print(f"bugs.json: {error}")
    try:
        test_file = read_submitted(folder, "test_bugs.py")
    except ValueError as error:
        print(error)
    return answers if isinstance(answers, dict) else {}, test_file


def grade(config):
    answers, test_file = read_answers(config.grade)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        def judge_bug(item):
            return judge(*item, answers, test_file, Path(folder), config)
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(judge_bug, number_bugs(config.seed).items()))
    report(rows, config.results, "please read test_bugs.py: does each test say why it fails?")


def main():
    config = read_flags(__doc__, Config)
    if config.grade:
        check(Path(config.grade).is_dir(), "--grade must be a folder")
        return grade(config)
    check(config.make and not Path(config.make).exists(), "--make must be a new folder")
    for number, bug in number_bugs(config.seed).items():
        copy_program(Path(config.make) / number, bug.file, bug.source())
    print(f"{config.make}: {len(BUGS)} programs, each with a bug")


if __name__ == "__main__":
    main()
