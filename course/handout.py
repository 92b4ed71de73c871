"""The student's version: this project with the bodies of some functions empty.

    python -m course.handout ../assignment                    the recipe's 14 functions
    python -m course.handout ../assignment --later            methods after 2022, the recipe solved
    python -m course.handout ../assignment --only gae,whiten  some of them

Made from the solved scripts each time, so that it cannot drift from them. Solutions, bugs, answers
and the tests that would show a bug of part 2 stay here: those of other things than the functions'
own scripts, and HELD_BACK. Tests of empty functions wait.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from course.bugs import HELD_BACK
from course.holes import HOLES, LATER, RECIPE, ROOT
from course.surgery import drop_functions, empty
from course.words import name_words
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config:
    folder: str = ""               # where to; may stand without its flag
    later: bool = False            # the second assignment, methods after 2022
    only: str = ""                 # functions to empty, apart by commas


NEVER = ("out*", ".git", ".ci", ".venv", "__pycache__", ".pytest_cache", "*.pyc", "samples")
KEPT = {"README.md", "__init__.py", "holes.py", "waiting.py"}          # of course/
TESTS = {"conftest.py", "run.sh", "test_eight_more.py", "test_gibbs.py",
         *(f"test_{Path(hole.file).stem}.py" for hole in RECIPE)}
OF_LATER = re.compile(r"^\s*(?:from|import) later\b|python -m later", re.M)


def leave_out(later):
    """-> what shutil.copytree asks: the names in a folder that are not handed out"""
    never = shutil.ignore_patterns(*NEVER)

    def choose(folder, names):
        left = set(never(folder, names))
        if Path(folder) == ROOT / "course":
            left |= set(names) - KEPT
        if Path(folder) == ROOT / "tests":
            left |= {name for name in names if name not in TESTS
                     and not (later and name.startswith("test_later"))}
        if not later:
            left |= {"later"} & set(names) if Path(folder) == ROOT else set()
            left |= {name for name in names if name.endswith((".py", ".sh"))
                     and OF_LATER.search((Path(folder) / name).read_text(encoding="utf-8"))}
        return left

    return choose


def change(path, new):
    path.write_text(new, encoding="utf-8", newline="\n")


def hand_out(folder, later=False, only=()):
    """-> the holes that are empty there"""
    folder = Path(folder)
    holes = [hole for hole in (HOLES if only else LATER if later else RECIPE)
             if not only or hole.name in only]
    shutil.copytree(ROOT, folder, ignore=leave_out(later or bool({*holes} & {*LATER})))
    for hole in holes:
        path = folder / hole.file
        change(path, empty(path.read_text(encoding="utf-8"), hole.name, hole.note))
    for name, tests in HELD_BACK.items():
        path = folder / "tests" / name
        if path.is_file():
            change(path, drop_functions(path.read_text(encoding="utf-8"), tests))
    path = folder / "tests" / "conftest.py"
    change(path, path.read_text(encoding="utf-8")
           + "\nfrom course.waiting import *      # tests of functions that are not written wait\n")
    return holes


def main():
    name_words("folder")
    config = read_flags(__doc__, Config)
    check(config.folder, "name a folder: python -m course.handout ../assignment")
    check(not os.path.lexists(config.folder), f"{config.folder} exists; name a new folder")
    check(not Path(config.folder).resolve().is_relative_to(ROOT),
          f"{config.folder} lies in this project; name a folder outside it")
    names = {name for name in config.only.split(",") if name}
    unknown = names - {hole.name for hole in HOLES}
    check(not unknown, f"--only {' '.join(unknown)}: no such function; see course/holes.py")
    holes = hand_out(config.folder, config.later, names)
    print(f"{config.folder}: {len(holes)} functions to write, {sum(h.points for h in holes)} "
          "points; it begins with course/README.md")


if __name__ == "__main__":
    run(main)
