"""Students' files and code: a separate process with limits, in a copy of the project without the
solution. Also the report that all graders write."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from course.cases import evaluate_all
from course.holes import HOLES, LATER, ROOT
from course.surgery import empty
from tools.flags import atomic_write

OUT_OF_TIME = (-signal.SIGKILL, -signal.SIGXCPU)        # exit statuses
LIMITS = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))     # of processor time
resource.setrlimit(resource.RLIMIT_DATA, (2 ** 31, 2 ** 31))        # bytes of memory
resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 24, 2 ** 24))       # bytes per file
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""


# --- files ----------------------------------------------------------------------------------------


def read_submitted(folder, name, max_bytes=2 ** 20):
    """-> the text of a submitted file. ValueError explains why there is none. Links are refused:
    the grader could read what the student may not."""
    path = Path(folder) / name
    try:
        inside = path.resolve().is_relative_to(Path(folder).resolve())
    except (RuntimeError, OSError):                          # a loop of links
        inside = False
    if path.is_symlink() or not inside:
        raise ValueError(f"{name} is a link; submit the file itself")
    if not path.is_file():
        raise ValueError(f"{name} is missing")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes; the limit is {max_bytes:,}")
    try:
        return path.read_text(encoding="utf-8-sig")         # some editors write a byte-order mark
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8")


def read_object(folder, name):
    """-> the object in a submitted JSON file; {}, and a line of output, if it has none"""
    try:
        value = json.loads(read_submitted(folder, name))
    except (ValueError, RecursionError) as error:
        print(f"{name}: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def copy_project(folder, *left_out):
    """Copies this project without what training has written and these files and folders."""
    ignore = shutil.ignore_patterns("out*", ".git", ".ci", ".venv", ".pytest_cache", "__pycache__",
                                    "samples", *left_out)
    shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)


def report(rows, path, note):
    """Prints rows (name, points, maximum, feedback), and writes Gradescope's results.json if there
    is a path."""
    tests = []
    for name, points, maximum, feedback in rows:
        tests.append(dict(name=name, score=round(points, 2), max_score=maximum, output=feedback,
                          visibility="visible"))
        indented = feedback.replace("\n", "\n" + 48 * " ")
        print(f"{points:5.2f} of {maximum:2}  {name:34} {indented}")
    print(f"{sum(row[1] for row in rows):5.2f} of {sum(row[2] for row in rows)}; {note}")
    if path:
        with atomic_write(path) as file:
            json.dump(dict(tests=tests, output=note), file, indent=1)


# --- a process with limits ------------------------------------------------------------------------


def run_limited(code, folder, seconds, user="", stdin=""):
    """Runs Python code in a folder, with an empty environment and no output.
    -> its exit status; None if it took `seconds` of processor time, or three times as long"""
    environment = dict(OMP_NUM_THREADS="1", HOME=str(folder), PYTHONDONTWRITEBYTECODE="1")
    for name in ("PATH", "LD_LIBRARY_PATH"):
        if name in os.environ:
            environment[name] = os.environ[name]
    as_user = {}
    if user:                                                # one who may read only this copy
        as_user = dict(user=user, group=pwd.getpwnam(user).pw_gid, extra_groups=[])
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", LIMITS.format(seconds=seconds) + code],
                               cwd=folder, env=environment, stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True, **as_user)
    try:
        process.communicate(stdin.encode(), timeout=3 * seconds)
        return None if process.returncode in OUT_OF_TIME else process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)          # the process and its children
        process.wait()


# --- a student's function in such a process -------------------------------------------------------


def copy_without(hole, folder):
    """The project in which this function and all later ones are empty, without the mistakes."""
    left_out = ["tests", "docs", "experiments", "mistakes.txt", "bugs.txt"]
    if hole not in LATER:
        left_out.append("later")
    copy_project(folder, *left_out)
    for later_hole in HOLES[HOLES.index(hole):]:
        path = folder / later_hole.file
        if path.is_file():
            path.write_text(empty(path.read_text("utf-8"), later_hole.name), "utf-8")


def run_student(hole, source, seed, seconds=20, user=""):
    """-> {case: outputs}, or one line that explains why there are none"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        path = folder / "out" / "outputs.pt"
        copy_without(hole, folder)
        path.parent.mkdir()
        if user:
            shutil.chown(path.parent, user)
        code = f"from course.sandbox import work; work({hole.name!r}, {seed}, {str(path)!r})"
        status = run_limited(code, folder, seconds, user, source)
        if status is None:
            return f"took more than {seconds} s"
        if not path.is_file() or path.is_symlink():
            return f"ended without a result (exit status {status})"
        with contextlib.suppress(Exception):
            return torch.load(path, weights_only=True)
        return "wrote something that is not a result"


def work(name, seed, path):
    """Runs in that process: the student's file comes from stdin, the outputs go to `path`."""
    torch.set_num_threads(1)
    hole = next(hole for hole in HOLES if hole.name == name)
    try:
        outputs = evaluate_all(hole, sys.stdin.read(), seed)
    except BaseException as error:
        outputs = f"{type(error).__name__}: {error}"
    torch.save(outputs, path)
