"""The student's version: this project with the bodies of some functions empty.

    python -m course.handout --to ../assignment                     the recipe's 14 functions
    python -m course.handout --to ../assignment --later             methods after 2022
    python -m course.handout --to ../assignment --only gae,whiten   some of them

It is made from the solved scripts each time. Left out are solutions, bugs, and all tests but those
of the scripts with empty functions; of these, the tests that would show a bug of part 2.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from course.bugs import HELD_BACK
from course.holes import LATER, RECIPE, ROOT, choose_holes
from course.surgery import drop_functions, empty
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    to: str = ""                   # the new folder
    later: bool = False            # the second assignment, with the recipe solved
    only: str = ""                 # functions to empty, separated by commas


IGNORED = ("out*", ".git", ".ci", ".venv", "__pycache__", ".pytest_cache", "*.pyc", "samples")
OF_COURSE = {"README.md", "__init__.py", "holes.py", "waiting.py"}
TESTS = {"conftest.py", "run.sh", "test_eight_more.py", "test_gibbs.py", "test_sft.py",
         *(f"test_{Path(hole.file).stem}.py" for hole in RECIPE)}
USES_LATER = re.compile(r"^\s*(?:from|import) later\b|python -m later", re.M)


def is_left_out(path, with_later):
    """Does this file or folder stay out of the student's version?"""
    if path.parent == ROOT / "course":
        return path.name not in OF_COURSE
    if path.parent == ROOT / "tests":
        return path.name not in TESTS and not (with_later and path.name.startswith("test_later"))
    if with_later:
        return False
    uses_later = path.suffix in (".py", ".sh") and USES_LATER.search(path.read_text("utf-8"))
    return path == ROOT / "later" or bool(uses_later)


def copy_project(folder, with_later):
    ignored_everywhere = shutil.ignore_patterns(*IGNORED)

    def ignore(directory, names):
        left_out = {name for name in names if is_left_out(Path(directory) / name, with_later)}
        return left_out | ignored_everywhere(directory, names)
    shutil.copytree(ROOT, folder, ignore=ignore)


def edit(path, text):
    path.write_text(text, encoding="utf-8", newline="\n")


def hand_out(folder, holes):
    """Writes the project with these functions empty."""
    folder = Path(folder)
    copy_project(folder, with_later=any(hole in LATER for hole in holes))
    for hole in holes:
        path = folder / hole.file
        edit(path, empty(path.read_text("utf-8"), hole.name, hole.note))
    for name, tests in HELD_BACK.items():
        path = folder / "tests" / name
        if path.is_file():
            edit(path, drop_functions(path.read_text("utf-8"), tests))
    path = folder / "tests" / "conftest.py"
    edit(path, path.read_text("utf-8") + "\n\nfrom course.waiting import *\n")


def main():
    config = read_flags(__doc__, Config)
    folder = Path(config.to)
    check(config.to and not folder.exists(), "--to must be a new folder")
    check(not folder.resolve().is_relative_to(ROOT), "--to must be outside this project")
    holes = choose_holes(config.only, config.later)
    hand_out(folder, holes)
    print(f"{folder}: {len(holes)} functions, {sum(hole.points for hole in holes)} points; "
          "start with course/README.md")


if __name__ == "__main__":
    main()
