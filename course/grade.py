"""Points for each function of a submission, offline, from fresh random inputs.

    python -m course.grade ../submission                           a table
    python -m course.grade ../submission --results results.json    and Gradescope's file
    python -m course.grade ../submission --seed 7 --only gae       the same inputs again

A student's function runs in a process of its own, among solved functions: a mistake in one costs
nothing in another. A wrong answer that is a known mistake's is told so.
"""

import functools
import os
import secrets
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch

from course.cases import CASES
from course.holes import HOLES, LATER, RECIPE, ROOT
from course.limits import run_limited
from course.mistakes import MISTAKES, make_mistake
from course.outputs import evaluate_all, find_difference
from course.surgery import empty
from course.words import check_folder, name_words, read_submitted, report
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config:
    submission: str = ""           # folder that was handed in; may stand without its flag
    results: str = ""              # Gradescope's results.json, if one is wanted
    seed: int = -1                 # of the inputs; -1 draws one and says which
    only: str = ""                 # functions to grade, apart by commas; all that are handed out
    later: bool = False            # the second assignment, methods after 2022
    user: str = ""                 # who runs the functions, if you are root; see instructor.md
    limit: int = 20                # seconds of processor time for a function


# --- a student's function, in a process of its own ------------------------------------------------

NEEDED = ["model.py", "sft.py", "reward.py", "ppo.py", "dpo.py", "data", "tools"]
COURSE = ["__init__.py", "cases.py", "holes.py", "limits.py", "outputs.py", "worker.py"]


def make_tree(folder, hole):
    """What a function needs, and not itself: it and those after it are empty."""
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", "samples")
    for name in NEEDED + (["later"] if hole in LATER else []):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, folder)
    (folder / "course").mkdir()
    for name in COURSE:
        shutil.copy(ROOT / "course" / name, folder / "course")
    for other in HOLES[HOLES.index(hole):]:
        path = folder / other.file
        if path.is_file():
            path.write_text(empty(path.read_text(encoding="utf-8"), other.name), encoding="utf-8")


def run_student(hole, source, seed, limit, user=""):
    """-> {case: outputs}, or a line that says why there are none"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder, out = Path(folder), Path(folder) / "out"
        make_tree(folder, hole)
        out.mkdir()
        path = out / "outputs.pt"
        if user:
            folder.chmod(0o755)
            shutil.chown(out, user)
        status = run_limited("from course.worker import work; "
                             f"work({hole.name!r}, {seed}, {str(path)!r})",
                             folder, limit, user, source)
        if status is None:
            return f"took more than {limit} s"
        if not path.is_file() or path.is_symlink():
            return f"it ended without a result (exit status {status})"
        try:
            return torch.load(path, weights_only=True)
        except Exception:
            return "it wrote something else than a result"


# --- points ---------------------------------------------------------------------------------------


@functools.cache
def solved(hole, seed):
    return evaluate_all(hole, (ROOT / hole.file).read_text(encoding="utf-8"), seed)


@functools.cache
def known(hole, seed):
    """-> {mistake: what it returns}"""
    source = (ROOT / hole.file).read_text(encoding="utf-8")
    return {mistake: evaluate_all(hole, make_mistake(mistake, source), seed)
            for mistake in MISTAKES if mistake.hole == hole.name}


def name_mistake(hole, theirs, seed):
    """-> what to say to whom has made a known mistake, where to look if it is none"""
    for mistake, same in known(hole, seed).items():
        if not any(find_difference(same[case], theirs.get(case)) for case in same):
            return mistake.says
    return f"where to look: {hole.look}"


def judge(hole, theirs, seed):
    """-> the share of the points, what to say"""
    if not isinstance(theirs, dict):
        return 0.0, shorten(theirs)
    if all(str(found).startswith("NotImplementedError") for found in theirs.values()):
        return 0.0, "not written yet"
    wrong = {case: found for case, ours in solved(hole, seed).items()
             if (found := find_difference(ours, theirs.get(case, "no result")))}
    if not wrong:
        return 1.0, "right"
    says = [name_mistake(hole, theirs, seed)]
    says += [f"wrong in the case '{case}': {shorten(found)}" for case, found in wrong.items()]
    says += [f"right in the case '{case}'" for case in CASES[hole.name] if case not in wrong]
    return 1 - len(wrong) / len(CASES[hole.name]), "\n".join(says)


def shorten(text):
    return " ".join(str(text).split())[:200]


def grade_one(hole, config, seed):
    """-> the share of the points, what to say; whatever was handed in"""
    try:
        source = read_submitted(config.submission, hole.file)
        compile(source, hole.file, "exec")
    except ValueError as e:
        return 0.0, shorten(e)
    except SyntaxError as e:
        return 0.0, f"{hole.file}:{e.lineno} is no Python {sys.version_info[0]}: {e.msg}"
    except (MemoryError, RecursionError):
        return 0.0, f"{hole.file} is too deep for Python's parser"
    return run_student(hole, source, seed, config.limit, config.user)


def grade(config, seed, holes):
    """-> [(hole, share of the points, what to say)]"""
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(functools.partial(grade_one, config=config, seed=seed), holes))
    graded = []
    for hole, theirs in zip(holes, found):
        try:
            share, says = theirs if isinstance(theirs, tuple) else judge(hole, theirs, seed)
        except Exception as e:                    # a result that was made to break the comparison
            share, says = 0.0, f"its result cannot be compared: {type(e).__name__}"
        graded.append((hole, share, says))
    return graded


def main():
    name_words("submission")
    config = read_flags(__doc__, Config)
    check_folder(config.submission, "name the folder that was handed in")
    names = [name for name in config.only.split(",") if name]
    holes = [hole for hole in (HOLES if names else LATER if config.later else RECIPE)
             if not names or hole.name in names]
    check(holes, f"--only {config.only}: no such function; see course/holes.py")
    check(not config.user or os.name == "posix" and os.geteuid() == 0, "--user needs root")
    seed, began = config.seed if config.seed >= 0 else secrets.randbelow(10 ** 6), time.time()
    torch.set_num_threads(1)
    rows = [(f"{hole.file} {hole.name}", share * hole.points, hole.points, says)
            for hole, share, says in grade(config, seed, holes)]
    report(rows, config.results,
           f"the same inputs again: --seed {seed}; {time.time() - began:.0f} s")


if __name__ == "__main__":
    run(main)
