"""Replacing the body of a function in a source text: the one operation that all of course/ needs.

The handout empties bodies. A known mistake (mistakes.txt) is a correct body with a wrong line, and
so is a bug of part 2 (bugs.txt). Signature, docstring and leading assertions stay."""

import ast
from pathlib import Path
from typing import NamedTuple


def find_function(source, name):
    """-> the ast node of the top-level function `name`"""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise ValueError(f"no function {name}")


def first_line(node):
    """The line number of a function, or of its first decorator."""
    return min([node.lineno] + [decorator.lineno for decorator in node.decorator_list])


def split_at_body(source, name):
    """-> three lists of lines: those before the body of `name`, the body, those after it"""
    node, lines = find_function(source, name), source.splitlines()
    kept = 1 if ast.get_docstring(node) is not None else 0             # statements
    while isinstance(node.body[kept], ast.Assert):
        kept += 1
    start = node.body[kept - 1].end_lineno if kept else node.body[0].lineno - 1
    return lines[:start], lines[start:node.end_lineno], lines[node.end_lineno:]


def empty(source, name, note=""):
    """The source with an empty body of `name` under the note as a comment."""
    before, _, after = split_at_body(source, name)
    comments = [f"    # {line}" for line in note.splitlines()]
    body = [*comments, f'    raise NotImplementedError("{name}")']
    return "\n".join(before + body + after) + "\n"


def drop_functions(source, names):
    """The source without some of its top-level functions."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            del lines[first_line(node) - 1:node.end_lineno]
    return "\n".join(lines) + "\n"


class Change(NamedTuple):
    """A record of mistakes.txt or bugs.txt."""
    place: str              # the function, or the file
    explanation: str        # of the mistake, or the symptom of the bug
    correct: str            # lines of the solution
    wrong: str              # lines that replace them
    tests: tuple            # tests of the project that fail, "test_x.py::test_y"


def read_changes(name):
    """Records are separated by blank lines. The first line is `place: explanation`, the others
    start with a sign: - correct, + wrong, ! test."""
    changes = []
    for paragraph in (Path(__file__).parent / name).read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        if lines:
            signed = {"-": [], "+": [], "!": []}
            for line in lines[1:]:
                signed[line[0]].append(line[2:])
            changes.append(Change(*lines[0].split(": ", 1), "\n".join(signed["-"]),
                                  "\n".join(signed["+"]), tuple(signed["!"])))
    return changes


def make_change(change, source):
    assert source.count(change.correct) == 1, f"not once in the source: {change.correct!r}"
    return source.replace(change.correct, change.wrong)


def make_mistake(mistake, source):
    """The solved file's function with the mistake in its body."""
    before, body, _ = split_at_body(source, mistake.place)
    start = first_line(find_function(source, mistake.place)) - 1
    return "\n".join(before[start:]) + "\n" + make_change(mistake, "\n".join(body) + "\n")
