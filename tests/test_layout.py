"""What the house promises of itself: who imports whom, how long a function may be, how many flags a
script may have, where its first equation stands."""

import ast
import dataclasses
import importlib
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ["sft", "compare", "reward", "ppo", "dpo", "eval"]
SCRIPTS = [*RECIPE, "chat", "tools.report"]
ASIDE = ("experiments", "later", "course", "tests")      # they look at all, nothing looks at them
FLOORS = [["tools", "tools.flags", "tools.device", "tools.optimizers", "tools.checkpoints",
           "tools.steps", "tools.results", "tools.page", "tools.report", "data",
           "data.tokenizer", "data.batches", "data.files",
           "data.comparisons", "data.world"],
          ["model"], ["sft", "compare", "reward", "dpo"], ["ppo"], ["eval", "chat"],
          ["tools.convert", *ASIDE]]


@cache
def trees():
    """{name of a module: its syntax tree}, of every file that git does not ignore"""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT,
                            capture_output=True, text=True).stdout.split()
    paths = [path for path in map(Path, listed or [p.relative_to(ROOT) for p in ROOT.rglob("*.py")
                                                   if ".venv" not in p.parts])
             if (ROOT / path).is_file()]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"):
            ast.parse((ROOT / path).read_text()) for path in paths}


def floor_of(module):
    """The number of the floor that a module, or the nearest package around it, stands on."""
    while module:
        for number, names in enumerate(FLOORS):
            if module in names:
                return number
        module = module.rpartition(".")[0]


def resolve(name, folder, known):
    """The known module that a name means in a file of a folder, None if it is a stranger's. Files
    aside find their neighbours first, and any file finds them if somebody has changed sys.path."""
    places = [f"{folder}."] * (folder in ASIDE) + [""] + [f"{aside}." for aside in ASIDE]
    return next((place + name for place in places if place + name in known), None)


def imported(module, known):
    """Those of the known modules that one imports, wherever in the file it does so."""
    tree, folder, names = known[module], module.rpartition(".")[0], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {resolve(name, folder, known) for name in names} - {module, None}


def graph(known):
    return {module: imported(module, known) for module in known}


def upwards(imports):
    """Those that import from a floor above theirs, or from a folder aside without being in one."""
    aside = {module for module in imports if module.partition(".")[0] in ASIDE}
    return [f"{module} imports {other}" for module, others in imports.items() for other in others
            if floor_of(other) > floor_of(module) or other in aside and module not in aside]


def parsed(**sources):
    return {name.replace("_", "."): ast.parse(source) for name, source in sources.items()}


# --- imports --------------------------------------------------------------------------------------


def test_every_file_stands_on_a_floor():
    known = trees()
    assert {"model", "ppo", "tools.steps", "data.world.text", "tests.conftest"} < set(known)
    assert [module for module in known if floor_of(module) is None] == []
    assert [name for names in FLOORS[:-1] for name in names if name not in known] == []


def test_imports_run_one_way():
    imports = graph(trees())
    assert imports["ppo"] >= {"model", "reward", "tools.flags", "data.files", "data.world.utility"}
    assert upwards(imports) == []


@pytest.mark.parametrize("module, source", [
    ("model", "import sft"), ("model", "def f():\n    from ppo import gae"), ("sft", "import ppo"),
    ("tools.flags", "from model import GPT"), ("data.files", "from dpo import pairs"),
    ("eval", "from experiments import plot"), ("eval", "import plot"), ("ppo", "import conftest"),
    ("tools.report", "from tools import convert"), ("tools.convert", "import experiments.plot")])
def test_an_import_that_runs_the_other_way_is_seen(module, source):
    stubs = parsed(model="", sft="", ppo="", dpo="", tools_convert="", experiments_plot="",
                   tests_conftest="")
    assert len(upwards(graph(stubs | {module: ast.parse(source)}))) == 1


def test_no_imports_go_in_a_circle():
    order = list(TopologicalSorter(graph(trees())).static_order())
    assert order.index("tools.flags") < order.index("model") < order.index("ppo")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(parsed(sft="import reward", reward="import dpo",
                                       dpo="from sft import lm_loss"))).prepare()


@pytest.mark.parametrize("module, absent", [
    ("model", ["data.world", "data.files", "tools.report", "tools.steps", "compare", "sft"]),
    ("ppo", ["tools.report", "compare", "eval"]),
    ("compare", ["reward", "ppo", "tools.report"])])
def test_an_import_does_not_bring_what_it_does_not_need(module, absent):
    code = f"import {module}, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    assert module in found and "data.batches" in found
    assert [name for name in found for root in absent
            if name == root or name.startswith(f"{root}.")] == []


# --- size -----------------------------------------------------------------------------------------


def functions(tree):
    """-> [(name, first line, number of lines)], with methods and inner functions, in order"""
    return [(node.name, node.lineno, node.end_lineno - node.lineno + 1) for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)]


def configs(module):
    """The dataclasses that a script's flags are made from."""
    calls = [node for node in ast.walk(trees()[module]) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and node.func.id == "read_flags"]
    return [getattr(importlib.import_module(module), name.id)
            for call in calls for name in call.args[1:]]


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_script_has_at_most_20_flags(module):
    found = configs(module)
    assert len(found) == (2 if module == "sft" else 1)
    for Config in found:
        assert dataclasses.is_dataclass(Config) and Config.__dataclass_params__.frozen
        assert 2 <= len(dataclasses.fields(Config)) <= 20, Config


@pytest.mark.parametrize("module", RECIPE)
def test_main_has_fewer_than_55_lines_and_no_other_function_more_than_40(module):
    found = functions(trees()[module])
    assert [length < 55 for name, _, length in found if name == "main"] == [True], found
    assert len(found) > 3
    assert [one for one in found if one[0] != "main" and one[2] > 40] == []


@pytest.mark.parametrize("module, before", [("sft", 80), ("reward", 80), ("dpo", 80), ("ppo", 150)])
def test_the_first_equation_stands_on_the_first_screens(module, before):
    lines = [line for name, line, _ in functions(trees()[module])
             if name.endswith("_loss") or name == "shaped_rewards"]
    assert min(lines) < before


def lambdas(tree):
    """The lines with a lambda, save the one that tells `load` how to build a model."""
    built = {arg for node in ast.walk(tree) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and node.func.id == "load"
             for arg in [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "build")]}
    return [node.lineno for node in ast.walk(tree)
            if isinstance(node, ast.Lambda) and node not in built]


@pytest.mark.parametrize("module", RECIPE)
def test_no_equation_hides_in_a_lambda(module):
    assert lambdas(trees()[module]) == []


def test_a_lambda_is_seen_save_for_the_one_that_builds_a_model():
    assert lambdas(ast.parse("load(p, lambda c: c)\nload(p, build=lambda c: c)")) == []
    assert lambdas(ast.parse("x = 1\nload(lambda c: c, g)\nsort(key=lambda i: -i)")) == [2, 3]
