"""The optimiser that is written by hand, against torch's and against the singular values; how
torch's threads wait."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plumbing import Muon, orthogonal

ROOT = Path(__file__).parents[1]
SCRIPTS = [*ROOT.glob("*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("experiments/*.py"),
           ROOT / "tests/conftest.py", ROOT / "tests/bench.py"]


# --- threads --------------------------------------------------------------------------------------


def imported(path):
    """The names of the modules that a file imports, in order; not those inside functions."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = ([node.module] if isinstance(node, ast.ImportFrom)
                     else [alias.name for alias in node.names])
            yield from (name.partition(".")[0] for name in names)


def late(path):
    """Whether torch is imported before plumbing, or before a script that imports plumbing first."""
    found = list(imported(path))
    first = {"plumbing", "model", "sft", "reward", "ppo", "dpo"} - {path.stem}
    return "torch" in found and path.stem != "plumbing" and (
        not first & set(found[:found.index("torch")]))


def test_every_script_imports_plumbing_before_torch(tmp_path):
    assert len(SCRIPTS) > 15 and not list(filter(late, SCRIPTS))
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import torch\nfrom plumbing import check\n")
    assert late(wrong)


def openmp_settings(script, **environment):
    """What torch's OpenMP says of itself while a script prints its help."""
    kept = {name: value for name, value in os.environ.items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    shown = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, text=True,
                           env=kept | environment | {"OMP_DISPLAY_ENV": "verbose"},
                           capture_output=True, check=True).stderr
    if "OMP_WAIT_POLICY" not in shown:
        pytest.skip("another OpenMP than GNU's")
    return shown.upper()


@pytest.mark.parametrize("script", ["sft.py", "eval.py", "model.py"])
def test_threads_hardly_spin_while_they_wait(script):
    shown = openmp_settings(script)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown and "GOMP_SPINCOUNT = '1000'" in shown


def test_how_the_user_lets_threads_wait_stays():
    """Whoever sets the policy gets OpenMP's own number of turns with it."""
    shown = openmp_settings("ppo.py", OMP_WAIT_POLICY="active")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in shown and "GOMP_SPINCOUNT = '1000'" not in shown
    shown = openmp_settings("ppo.py", GOMP_SPINCOUNT="77")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown and "GOMP_SPINCOUNT = '77'" in shown


def test_the_environment_is_set_whatever_openmp_there_is():
    """LLVM's shows nothing of it, so the variables themselves."""
    code = "import os, plumbing; print(*map(os.getenv, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')))"
    kept = {name: value for name, value in os.environ.items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for given, found in ({}, "passive 1000"), ({"OMP_WAIT_POLICY": "active"}, "active None"):
        shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, env=kept | given,
                               capture_output=True, check=True).stdout
        assert shown.strip() == found


# --- Muon -----------------------------------------------------------------------------------------


def test_orthogonal_keeps_the_singular_vectors_and_brings_the_values_near_one():
    torch.manual_seed(0)
    for shape in [(8, 8), (24, 8), (8, 24)]:
        g = torch.randn(shape)
        u, _, vt = torch.linalg.svd(g, full_matrices=False)
        values = u.T @ orthogonal(g) @ vt.T
        assert (values - values.diag().diag()).abs().max() < 1e-4
        assert values.diag().min() > 0.6 and values.diag().max() < 1.25


def test_matrices_turned_together_are_those_turned_one_at_a_time():
    """Of both forms, and of very different sizes: none may lean on its neighbours."""
    torch.manual_seed(0)
    for shape in [(24, 8), (8, 24), (8, 8)]:
        stack = torch.randn(5, *shape) * torch.tensor([1e-4, 1, 1, 30, 1e3]).view(5, 1, 1)
        together = orthogonal(stack)
        assert together.shape == stack.shape
        for one, turned in zip(stack, together):
            torch.testing.assert_close(turned, orthogonal(one), atol=1e-5, rtol=0)
            values = torch.linalg.svdvals(turned)
            assert values.min() > 0.6 and values.max() < 1.25


def test_muon_steps_on_many_matrices_as_on_each_alone():
    """Shapes that come again, not in a row: each matrix keeps its own gradient and average."""
    torch.manual_seed(0)
    shapes = [(8, 8), (24, 8), (8, 8), (8, 24), (24, 8), (8, 8)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    settings = dict(lr=0.1, weight_decay=0.1, momentum=0.9)
    together, each = Muon(ours, **settings), [Muon([p], **settings) for p in alone]
    for step in range(4):
        for p, q in zip(ours, alone):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        for optimizer in (together, *each):
            optimizer.step()
    for p, q in zip(ours, alone):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=0)


def test_muon_goes_where_torchs_muon_goes():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(8, 24), (24, 8)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    settings = dict(lr=0.1, weight_decay=0.1, momentum=0.9)
    one, other = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for step in range(5):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        one.step(), other.step()
    for p, q in zip(ours, theirs):          # torch's orthogonalises in bfloat16
        torch.testing.assert_close(p, q, atol=0.02, rtol=0)
