"""The same program, written differently: for part 2, so that no diff shows where the bug is. Local
variables get other names, functions another order, some parts of expressions a statement of their
own, some comparisons are reversed, and comments go. Which ones depends on the seed, so that two
programs differ in most functions even if their names are made equal. Classes of flags and of named
fields stay as they are, since their comments are read."""

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


SWAPPED = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}


class Restructure(ast.NodeTransformer):
    """In some places, as the seed decides, y = g(f(a), b) becomes part = f(a); y = g(part, b), and
    a < b becomes b > a. Every return f(x) becomes part = f(x); return part, return (part := f(x)),
    or as above."""

    def __init__(self, seed, function):
        self.seed, self.function, self.places = seed, function, 0

    def decide(self):
        self.places += 1
        return choose(self.seed, f"{self.function} {self.places}", [True, False])

    def visit_Compare(self, node):
        has_call = any(isinstance(part, ast.Call) for part in ast.walk(node))
        if self.decide() and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED and not has_call:
            return ast.Compare(node.comparators[0], [SWAPPED[type(node.ops[0])]()], [node.left])
        return node

    def visit_Assign(self, node):
        return self.name_first_part(self.generic_visit(node))

    def visit_Expr(self, node):
        return self.name_first_part(self.generic_visit(node))

    def visit_Return(self, node):
        """Always changed, for such a line has no local variable that gets another name."""
        if node.value is None or isinstance(node.value, (ast.Name, ast.Constant)):
            return node
        changed = self.name_first_part(self.generic_visit(node))
        if changed is not node:
            return changed
        stored = ast.Name(f"part_{self.places}", ast.Store())
        if self.decide():
            return ast.Return(ast.NamedExpr(stored, node.value))
        return [ast.Assign([stored], node.value), ast.Return(ast.Name(stored.id, ast.Load()))]

    def name_first_part(self, node):
        """Moves out what is evaluated first, so that the order of evaluation stays the same."""
        if not self.decide():
            return node
        value, name = node.value, ast.Name(f"part_{self.places}", ast.Load())
        if isinstance(value, ast.BinOp) and isinstance(value.left, (ast.Call, ast.BinOp)):
            part, value.left = value.left, name
        elif (isinstance(value, ast.Call) and is_plain(value.func) and value.args
              and isinstance(value.args[0], (ast.Call, ast.BinOp))):
            part, value.args[0] = value.args[0], name
        else:
            return node
        return [ast.Assign([ast.Name(name.id, ast.Store())], part), node]


def is_plain(node):
    """A name with any number of attributes: to evaluate it has no effect."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


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
                    Restructure(seed, f"{node.name} {function.name}").visit(function)
            text = ast.unparse(ast.fix_missing_locations(node))
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = f"\n\n{text}"
            else:
                write_functions()
                texts.append(f"\n\n{text}")
        end = node.end_lineno
    write_functions()
    return "\n".join(texts) + "\n"
