"""The layout of the code: who imports whom, how long files and functions are, where the first loss
is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = {"model": 235, "pretrain": 110, "sft": 110, "compare": 150, "reward": 165, "ppo": 331,
             "dpo": 130, "eval": 192, "chat": 51, "generate": 50}
CORE = list(MAX_LINES)
LEVELS = [                                   # a module imports from its own level and those before
    ["model"],
    ["data", "tools"],
    ["generate", "pretrain", "sft", "compare", "reward", "dpo"],
    ["ppo"],
    ["eval", "report", "chat", "tools.convert"],
    ["later", "course", "experiments", "tests", "report.slow_motion"]]


def parse(module):
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())


def python_files(*folders):
    paths = sorted(ROOT.glob("*.py"))
    for folder in folders:
        paths += sorted((ROOT / folder).rglob("*.py"))
    return paths


def level(module):
    """The number of the level that names the module or its folder; None for other packages."""
    for name in (module, module.partition(".")[0]):
        for number, names in enumerate(LEVELS):
            if name in names:
                return number


def imports(tree):
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module)
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules


def test_imports_run_one_way():
    wrong = []
    for path in python_files("data", "tools", "report"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for imported in imports(ast.parse(path.read_text())):
            if level(imported) is not None and level(imported) > level(module):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_model_imports_torch_only():
    packages = {module.partition(".")[0] for module in imports(parse("model"))}
    assert packages == {"math", "dataclasses", "torch"}


def functions(module):
    """[(name, number of lines)] with methods and inner functions"""
    lengths = []
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.FunctionDef):
            lengths.append((node.name, node.end_lineno - node.lineno + 1))
    return lengths


@pytest.mark.parametrize("module", CORE)
def test_functions_are_short(module):
    """A few lines more where a training loop is written out."""
    for name, length in functions(module):
        assert length <= (45 if name in ("main", "train") else 40), f"{name} has {length} lines"


@pytest.mark.parametrize("module", CORE)
def test_files_are_short(module):
    n_lines = len((ROOT / f"{module}.py").read_text().splitlines())
    assert n_lines <= MAX_LINES[module]


@pytest.mark.parametrize("module, line", [("pretrain", 80), ("reward", 100), ("dpo", 80),
                                          ("ppo", 120)])
def test_the_first_loss_is_near_the_top(module, line):
    first_lines = []
    for node in parse(module).body:
        if isinstance(node, ast.FunctionDef) and node.name.endswith(("_loss", "_rewards")):
            first_lines.append(node.lineno)
    assert min(first_lines) < line


def comprehensions(tree):
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize("module", CORE)
def test_comprehensions_have_one_for_and_are_not_nested(module):
    for node in comprehensions(parse(module)):
        inside = [inner for inner in comprehensions(node) if inner is not node]
        assert len(node.generators) == 1 and not inside, f"line {node.lineno}"


def test_eval_has_few_comprehensions():
    assert len(comprehensions(parse("eval"))) <= 12


def test_lines_have_at_most_100_columns():
    for path in python_files("data", "tools", "report", "later", "course", "experiments", "tests"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 100, f"{path}:{number}"


def test_the_scripts_do_not_load_what_they_do_not_need():
    code = "import compare, dpo, ppo, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split()
    assert "data.batches" in loaded
    unneeded = {"transformers", "matplotlib", "eval", "report", "later", "experiments", "course"}
    assert not unneeded & set(loaded)
