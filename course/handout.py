"""The student's version: this project with the bodies of some functions empty.

    python -m course.handout --to ../assignment                     the recipe's 14 functions
    python -m course.handout --to ../optional --later               GRPO, and other later methods

AGENTS.md tells a student's coding assistant to be a tutor.

Left out are solutions, bugs, and all tests that are not of a script with empty functions or that
would show a bug of part 2.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from course.bugs import HELD_BACK
from course.holes import LATER, RECIPE, ROOT
from course.sandbox import copy_project
from course.surgery import drop_functions, empty
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    to: str = ""                   # the new folder
    later: bool = False            # the second assignment, with the recipe solved


OF_COURSE = ["README.md", "__init__.py", "holes.py", "start.py", "waiting.py"]
TESTS = ["conftest.py", "run.sh", "test_eight_more.py", "test_gibbs.py", "test_sft.py",
         *{f"test_{Path(hole.file).stem}.py" for hole in RECIPE}]


def delete_others(folder, names):
    """Deletes all files of the folder but these."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def hand_out(folder, holes):
    """Writes the project with these functions empty."""
    folder, tests = Path(folder), list(TESTS)
    if any(hole in LATER for hole in holes):
        copy_project(folder)
        tests += [path.name for path in folder.glob("tests/test_later*")]
    else:
        copy_project(folder, "later", "test_later*", "slow_motion.py", "slow_motion.html")
    delete_others(folder / "course", OF_COURSE)
    delete_others(folder / "tests", tests)
    for hole in holes:
        path = folder / hole.file
        path.write_text(empty(path.read_text("utf-8"), hole.name, hole.note), "utf-8")
    shutil.copy(ROOT / "course" / "tutor.md", folder / "AGENTS.md")
    for name, tests_of_bugs in HELD_BACK.items():
        path = folder / "tests" / name
        path.write_text(drop_functions(path.read_text("utf-8"), tests_of_bugs), "utf-8")
    path = folder / "tests" / "conftest.py"
    path.write_text(path.read_text("utf-8") + "\n\nfrom course.waiting import *\n", "utf-8")


def main():
    config = read_flags(__doc__, Config)
    folder = Path(config.to)
    check(config.to and not folder.exists(), "--to must be a new folder")
    check(not folder.resolve().is_relative_to(ROOT), "--to must be outside this project")
    holes = LATER if config.later else RECIPE
    hand_out(folder, holes)
    print(f"{folder}: {len(holes)} functions; start with course/README.md")


if __name__ == "__main__":
    main()
