"""Part 2: silent bugs. The program runs, the log looks alive, and something is not learned.

    python -m course.bugs make ../bugs             ../bugs/1 ... ../bugs/10, one wrong line in each
    python -m course.bugs grade ../submission      bugs.json and test_bugs.py -> points

A student hands in bugs.json, {"1": {"line": "ppo.py:196", "fix": "the line as it should be"}, ...},
and test_bugs.py with test_bug_1, ...: each passes on the right program and fails on its bug. Line
and fix are half a point each, the test is two: a diff of two programs shows the line, and no test.
--seed numbers the bugs otherwise, another one each year.
"""

import ast
import functools
import json
import os
import random
import re
import shutil
import tempfile
import textwrap
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from course.holes import ROOT
from course.limits import run_limited
from course.surgery import read_records, replace_once
from course.words import check_folder, name_words, read_submitted, report
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config:
    what: str = ""                 # make or grade; may stand without its flag
    folder: str = ""               # where to, or what was handed in; may stand without its flag
    seed: int = 0                  # numbers the bugs; the same for make and for grade
    results: str = ""              # Gradescope's results.json, if one is wanted
    user: str = ""                 # who runs the tests, if you are root; see instructor.md
    limit: int = 60                # seconds of processor time for a test


Bug = namedtuple("Bug", "file right wrong seen probe figures tests")


def read_bugs():
    found = []
    for (file, seen), lines in read_records("bugs.txt"):
        probe, _, figures = lines["?"][0].partition(": ")
        found.append(Bug(file, "\n".join(lines["-"]), "\n".join(lines["+"]), seen, probe,
                         tuple(figures.split(", ")), tuple(lines["!"])))
    return found


BUGS = read_bugs()
HELD_BACK = {}                                     # {test file: names of the tests that show a bug}
for bug in BUGS:
    for test in bug.tests:
        HELD_BACK.setdefault(test.split("::")[0], set()).add(test.split("::")[1])


# --- programs -------------------------------------------------------------------------------------


def put_in(bug):
    """The text of its file with the bug in it."""
    return replace_once((ROOT / bug.file).read_text(encoding="utf-8"), bug.right, bug.wrong)


def copy_program(folder, file="", text="", tests=()):
    """The project without tests, course and experiments, another text in one of its files, and
    some tests."""
    leave = shutil.ignore_patterns(
        "out*", ".git", ".ci", ".venv", "__pycache__", ".pytest_cache", "*.pyc", "tests", "course",
        "docs", "experiments", "later", "samples", "README.md")
    shutil.copytree(ROOT, folder, ignore=leave)
    if file:
        (Path(folder) / file).write_text(text, encoding="utf-8", newline="\n")
    for name in {"conftest.py", *tests} if tests else ():
        (Path(folder) / "tests").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / name, Path(folder) / "tests" / name)
    return Path(folder)


def number(seed):
    """-> {"1": bug, ...}"""
    order = list(BUGS)
    if seed:
        random.Random(f"bugs {seed}").shuffle(order)
    return {str(n): bug for n, bug in enumerate(order, 1)}


# --- points ---------------------------------------------------------------------------------------


def run_tests(folder, tests, config):
    """Exit status of pytest on [file::name] in a copy of the project; None: it took too long."""
    course = folder / "course"
    course.mkdir(exist_ok=True)
    for name in ("__init__.py", "limits.py"):
        shutil.copy(ROOT / "course" / name, course)
    if config.user:
        for path in (folder.parent, folder):
            path.chmod(0o755)
    arguments = ["-q", "-x", "-p", "no:cacheprovider", *tests]
    return run_limited(f"import pytest, sys; sys.exit(pytest.main({arguments!r}))", folder,
                       config.limit, config.user)


def parse(lines):
    try:
        return ast.dump(ast.parse("\n".join(lines)))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def find_lines(bug):
    """Numbers, from 1, of the lines of its file that the bug changed; a line that it took away was
    between two."""
    right = (ROOT / bug.file).read_text(encoding="utf-8")
    first = right[:right.index(bug.right)].count("\n") + 1
    changed = zip(bug.right.split("\n"), bug.wrong.split("\n"))
    skip = next((i for i, (a, b) in enumerate(changed) if a != b), 0)
    return range(first + skip - 1, first + skip + 2)


def is_mended(bug, lines, folder, config):
    """Whether a text of the file, otherwise written than the right one, passes the bug's tests."""
    if parse(lines) is None or not bug.tests:
        return False
    files = {test.split("::")[0] for test in bug.tests}
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        mended = copy_program(Path(place) / "mended", bug.file, "\n".join(lines) + "\n", files)
        return run_tests(mended, [f"tests/{test}" for test in bug.tests], config) == 0


def mend(wrong, i, n, fix):
    """The lines with the fix in the place of n of them from i on, indented like line i."""
    indent = wrong[i][:len(wrong[i]) - len(wrong[i].lstrip())]
    return wrong[:i] + textwrap.indent(textwrap.dedent(fix), indent).splitlines() + wrong[i + n:]


def judge_line(bug, answer, folder, config):
    """-> points of 1, what to say"""
    file, _, line = str(answer.get("line", "")).partition(":")
    if file != bug.file or not re.fullmatch(r"\d{1,5}", line) or int(line) not in find_lines(bug):
        return 0, "the line is another" if line else "no line is named"
    wrong, fix = put_in(bug).splitlines(), str(answer.get("fix", ""))[:1000]
    same = parse((ROOT / bug.file).read_text(encoding="utf-8").splitlines())
    tried = [mend(wrong, i - 1, n, fix) for i in find_lines(bug) for n in (0, 1)]
    if any(parse(lines) == same for lines in tried):
        return 1, "line and fix are right"
    if fix.strip() and is_mended(bug, mend(wrong, find_lines(bug)[1] - 1, 1, fix), folder,
                                  config):
        return 1, "line and fix are right"
    return 0.5, "the line is right"


def judge_test(n, bug, text, folder, config):
    """-> points of 2, what to say"""
    name = f"test_bug_{n}"
    if f"def {name}(" not in text:
        return 0, f"no {name}"
    status = {}
    for which in ("right", "bug"):
        place = folder / f"{n}-{which}"
        copy_program(place, *((bug.file, put_in(bug)) if which == "bug" else ()))
        (place / "test_bugs.py").write_text(text, encoding="utf-8")
        status[which] = run_tests(place, [f"test_bugs.py::{name}"], config)
    if status["right"] != 0:
        return 0, "the test fails on the right program" if status["right"] == 1 else (
            "the test does not run on the right program")
    return (2, "the test tells them apart") if status["bug"] == 1 else (
        0, "the test passes on the program with the bug as well")


def judge(item, answers, text, folder, config):
    """-> (name, points, most, what to say)"""
    n, bug = item
    answer = answers.get(n) if isinstance(answers.get(n), dict) else {}
    points, says = judge_line(bug, answer, folder, config)
    more, also = judge_test(n, bug, text, folder, config)
    return f"bug {n}", points + more, 3, f"{says}; {also}"


def grade(config):
    texts = {}
    for name in ("bugs.json", "test_bugs.py"):
        try:
            texts[name] = read_submitted(config.folder, name)
        except ValueError as e:
            print(f"{e}: its points are lost")
    try:
        answers = json.loads(texts.get("bugs.json", "{}"))
        check(isinstance(answers, dict), 'bugs.json is to be {"1": {"line": ..., "fix": ...}, ...}')
    except (ValueError, RecursionError) as e:
        print(f"bugs.json is no JSON ({e}): its points are lost")
        answers = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(functools.partial(
                judge, answers=answers, text=texts.get("test_bugs.py", ""), folder=Path(folder),
                config=config), number(config.seed).items()))
    report(rows, config.results, "a person reads test_bugs.py: each test is to say why")


def main():
    name_words("what", "folder")
    config = read_flags(__doc__, Config)
    check(config.what in ("make", "grade"), "python -m course.bugs make FOLDER, or grade FOLDER")
    if config.what == "grade":
        check_folder(config.folder, "name the folder that was handed in")
        return grade(config)
    check(config.folder and not os.path.lexists(config.folder),
          f"{config.folder or 'no folder'}: name a new folder")
    for n, bug in number(config.seed).items():
        copy_program(Path(config.folder) / n, bug.file, put_in(bug))
    print(f"{config.folder}: {len(BUGS)} programs with a bug in each")


if __name__ == "__main__":
    run(main)
