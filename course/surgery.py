"""Replacing the body of a function in a source text: the one operation that all of course/ needs.

The handout empties bodies. A known mistake (mistakes.txt) is a correct body with a wrong line, and
so is a bug of part 2 (bugs.txt). Signature, docstring and leading assertions stay.
"""

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


def replace_once(source, correct, wrong):
    assert source.count(correct) == 1, f"{source.count(correct)} times in the source: {correct!r}"
    return source.replace(correct, wrong)


def read_records(name):
    """Reads mistakes.txt or bugs.txt: records separated by blank lines, each with a first line
    `key: text` and further lines that start with a sign. -> [(key, text, {sign: [lines]})]"""
    records = []
    for paragraph in (Path(__file__).parent / name).read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        if lines:
            key, text = lines[0].split(": ", 1)
            signed = {"-": [], "+": [], "!": []}
            for line in lines[1:]:
                signed[line[0]].append(line[2:])
            records.append((key, text, signed))
    return records


# --- known mistakes -------------------------------------------------------------------------------


class Mistake(NamedTuple):
    function: str
    explanation: str
    correct: str            # lines of the solved body
    wrong: str              # lines that replace them


def read_mistakes():
    mistakes = []
    for function, explanation, lines in read_records("mistakes.txt"):
        mistakes.append(Mistake(function, explanation, "\n".join(lines["-"]),
                                "\n".join(lines["+"])))
    return mistakes


def make_mistake(mistake, source):
    """The solved file's function with the mistake in its body."""
    before, body, _ = split_at_body(source, mistake.function)
    body = replace_once("\n".join(body) + "\n", mistake.correct, mistake.wrong)
    start = first_line(find_function(source, mistake.function)) - 1
    return "\n".join(before[start:]) + "\n" + body
