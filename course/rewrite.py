"""The same program, written differently: for part 2, so that no diff shows where the bug is. Local
variables get other names, functions another order, a result a statement of its own, and comments
go. Classes of flags and of named fields stay as they are, since their comments are read."""

import ast
import random

SUFFIXES = ["now", "here", "values", "found", "part", "made", "own", "used"]
KEPT = ("dataclass", "NamedTuple", "Flags")


def choose(seed, key, choices):
    """Depends on nothing else, so a bug changes no other line."""
    return random.Random(f"{seed} {key}").choice(choices)


def local_names(function):
    """Names that are assigned in a function and belong to it alone."""
    stored, taken = set(), set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            stored.add(node.id)
        elif isinstance(node, ast.arg):
            taken.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            taken.add(node.name)
        elif isinstance(node, ast.Global):
            taken.update(node.names)
        elif isinstance(node, ast.alias):
            taken.add(node.asname or node.name)
    return {name for name in stored - taken if not name.startswith("_")}


def rename_locals(function, seed):
    names = {}
    for name in local_names(function):
        names[name] = f"{name}_{choose(seed, f'{function.name} {name}', SUFFIXES)}"
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.Nonlocal):
            node.names = [names.get(name, name) for name in node.names]


class NameResults(ast.NodeTransformer):
    """return f(x)  ->  result = f(x); return result"""

    def __init__(self, seed):
        self.name = f"result_{choose(seed, 'result', SUFFIXES)}"

    def visit_Return(self, node):
        if node.value is None or isinstance(node.value, (ast.Name, ast.Constant)):
            return node
        return [ast.Assign([ast.Name(self.name, ast.Store())], node.value),
                ast.Return(ast.Name(self.name, ast.Load()))]


def is_kept(node):
    if isinstance(node, ast.ClassDef):
        header = [ast.unparse(part) for part in node.decorator_list + node.bases]
        return any(word in text for word in KEPT for text in header)
    return not isinstance(node, ast.FunctionDef)


def rewrite(source, seed):
    """-> the text of a module that does the same"""
    lines, texts, functions = source.splitlines(), [], {}
    end = 0                              # of what has been read

    def write_functions():               # those before a class or statement, in another order
        for name in sorted(functions, key=lambda name: choose(seed, name, range(10 ** 9))):
            texts.append(functions[name])
        functions.clear()

    for node in ast.parse(source).body:
        if is_kept(node):
            write_functions()
            texts.append("\n".join(lines[end:node.end_lineno]))
        else:
            for function in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(function, ast.FunctionDef):
                    rename_locals(function, seed)
            text = ast.unparse(ast.fix_missing_locations(NameResults(seed).visit(node)))
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = f"\n\n{text}"
            else:
                write_functions()
                texts.append(f"\n\n{text}")
        end = node.end_lineno
    write_functions()
    return "\n".join(texts) + "\n"
