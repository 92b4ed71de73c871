"""The one operation of the course: another body for a function of a source text.

Handing out empties bodies, a known mistake is a wrong line in a right body, and so is a hidden bug.
Signature, docstring and the assertions about shapes stay.
"""

import ast
from pathlib import Path


def find(source, name):
    """-> the node of the function `name` at the top level"""
    found = [node for node in ast.parse(source).body
             if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(found) == 1, f"{len(found)} functions are called {name}"
    return found[0]


def first_line(node):
    """Of a function with its decorators."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def cut(source, name):
    """-> the lines above the body of `name`, its body, the lines below. Docstring and leading
    assertions stand above."""
    node, lines = find(source, name), source.splitlines()
    body = node.body[ast.get_docstring(node) is not None:]
    while body and isinstance(body[0], ast.Assert):
        body = body[1:]
    assert body, f"{name} has nothing to replace"
    kept = len(node.body) - len(body)
    above = node.body[kept - 1].end_lineno if kept else body[0].lineno - 1
    return lines[:above], lines[above:node.end_lineno], lines[node.end_lineno:]


def empty(source, name, note=""):
    """The source with a body of `name` that only says that it is not written yet, under a note."""
    above, _, below = cut(source, name)
    notes = [f"    # {line}" for line in note.splitlines()]
    return "\n".join([*above, *notes, f'    raise NotImplementedError("{name}")', *below]) + "\n"


def get_function(source, name):
    """-> the text of the function `name` with its decorators"""
    node = find(source, name)
    return "\n".join(source.splitlines()[first_line(node) - 1:node.end_lineno]) + "\n"


def replace_once(source, right, wrong):
    assert source.count(right) == 1, f"{right!r} stands there {source.count(right)} times"
    return source.replace(right, wrong)


def read_records(name):
    """Records of a file of course/, apart by empty lines: `what: says`, then lines that begin with
    a sign. -> [((what, says), {sign: [lines]})]"""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    found = []
    for record in text.split("\n\n"):
        lines = [line for line in record.splitlines() if not line.startswith("#")]
        if lines:
            found.append((tuple(lines[0].split(": ", 1)), {
                sign: [line[2:] for line in lines[1:] if line[0] == sign] for sign in "-+?!"}))
    return found


def drop_functions(source, names):
    """The source without those functions of its top level."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            del lines[first_line(node) - 1:node.end_lineno]
    return "\n".join(lines) + "\n"
