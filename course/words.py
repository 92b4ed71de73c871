"""Words of the command line without flags, and what every part of the grading writes."""

import json
import sys
from pathlib import Path

from tools.flags import fail, write_whole

MOST = 2 ** 20             # bytes of a file that somebody hands in as text


def name_words(*names):
    """`make ../bugs` -> `--what make --folder ../bugs`, for the words before the first flag."""
    words = []
    while len(sys.argv) > 1 and not sys.argv[1].startswith("-") and len(words) < len(names):
        words.append(sys.argv.pop(1))
    sys.argv[1:1] = [text for name, word in zip(names, words) for text in (f"--{name}", word)]


def read_submitted(folder, name, most=MOST):
    """-> the text of a file of a submission. ValueError says in a line why there is none; a link
    out of the folder is none, since the grader may read what a student may not."""
    path, folder = Path(folder) / name, Path(folder).resolve()
    if not path.is_file():
        raise ValueError(f"{name} is missing")
    if not path.resolve().is_relative_to(folder) or path.is_symlink():
        raise ValueError(f"{name} is a link; hand in the file itself")
    if path.stat().st_size > most:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes, {most:,} are the most")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8")


def report(rows, path, note):
    """rows: [(name, points, most, what to say)], shown as a table, and written for Gradescope if
    there is a path."""
    for name, points, most, says in rows:
        print(f"{points:5.2f} of {most:2}  {name:34} " + says.replace("\n", f"\n{'':48}"))
    total, most = (sum(row[i] for row in rows) for i in (1, 2))
    print(f"{total:5.2f} of {most}; {note}")
    if path:
        tests = [dict(name=name, score=round(points, 2), max_score=most, output=says,
                      visibility="visible") for name, points, most, says in rows]
        with write_whole(path) as file:
            file.write(json.dumps(dict(tests=tests, output=note), indent=1) + "\n")


def check_folder(folder, what):
    if not Path(folder).is_dir():
        fail(f"{folder or 'no folder'}: {what}")
