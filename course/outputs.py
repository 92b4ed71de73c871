"""What a function returns on the cases, its gradients, and how that differs from what is right.

A student's process runs `evaluate` and writes what it found; the grader runs it on the solved
function and compares.
"""

import ast
from importlib import import_module

import tools               # before torch: it says how torch's threads wait
import torch

from course.cases import CASES, Bigram
from course.holes import module_of
from data.batches import PAD

# which arguments the result is differentiated by; the other functions are used without gradients
BY = dict(token_logprobs=[0], masked_mean=[0], lm_loss=[0], preference_loss=[0, 1],
          ranking_loss=[0], score=[0], policy_loss=[0], value_loss=[0], sequence_logprob=[0],
          dpo_loss=[0, 1], grpo_loss=[0], simpo_loss=[0, 1], process_loss=[0])


def load_function(hole, source):
    """A function as `source` has it, with the source's own imports and helpers, among everything
    else that the solved module has."""
    module = import_module(module_of(hole))
    names = dict(vars(module))
    own = [node for node in ast.parse(source, hole.file).body if is_own(node, hole.name, names)]
    exec(compile(ast.Module(own, []), hole.file, "exec"), names)
    if hole.name not in names or names[hole.name] is getattr(module, hole.name, None):
        raise NameError(f"{hole.file} has no function {hole.name}")
    return names[hole.name]


def is_own(node, name, names):
    """Whether a statement of a student's file counts: imports, the function, what only it has."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name == name or node.name not in names
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and any(
        isinstance(target, ast.Name) and target.id not in names for target in targets)


def name_results(result):
    """Whatever a hole returns -> {name: tensor}"""
    if hasattr(result, "tokens"):                       # a rollout without its minibatches
        raise TypeError("a rollout and its minibatches are asked for, not the rollout alone")
    if isinstance(result, (tuple, list)) and len(result) == 2 and hasattr(result[0], "tokens"):
        return name_episodes(*result)
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    named = {f"value {i}" if i else "value": part for i, part in enumerate(parts)}
    for key, part in list(named.items()):
        if isinstance(part, dict):
            named |= named.pop(key)
    for key, part in named.items():
        if not torch.is_tensor(part):
            raise TypeError(f"{key} is a {type(part).__name__}, not a tensor")
    return named


def name_episodes(ro, minibatches):
    """What is known about each answer, wherever it stands and whatever stands outside its mask."""
    rows = []
    for i, mask in enumerate(ro.mask.bool()):
        last = int(mask.nonzero().max()) + 2
        known = [x[i][mask] for x in (ro.logp, ro.ref_logp, ro.value, ro.adv, ro.ret)]
        rows.append((ro.tokens[i, :last].tolist(), torch.cat([
            ro.scores[i:i + 1], ro.ended[i:i + 1].float(), ro.mask[i, :last - 1], *known])))
        assert (ro.tokens[i, last:] == PAD).all(), "what stands behind an answer is no padding"
    rows = [numbers for _, numbers in sorted(rows, key=order_of)]
    flat = sorted(int(i) for batch in minibatches for i in batch)
    return {"value": torch.cat(rows), "rows of the minibatches": torch.tensor(flat),
            "minibatches": torch.tensor(sorted(len(batch) for batch in minibatches))}


def order_of(row):
    return row[0], row[1].tolist()


def evaluate(function, name, case, seed):
    """-> {what: tensor} of values, gradients and untouched arguments, or what it raised"""
    draw, settings = CASES[name][case]
    arguments = list(draw(torch.Generator().manual_seed(seed), **settings))
    before = {i: x.clone() for i, x in enumerate(arguments) if torch.is_tensor(x)}
    by = [x.table if isinstance(x, Bigram) else x.requires_grad_()
          for x in (arguments[i] for i in BY.get(name, []))]
    torch.manual_seed(seed)
    try:
        with torch.set_grad_enabled(bool(by)):
            found = name_results(function(*arguments))
        out = {key: value.detach().float() for key, value in found.items()}
        if by:
            graph = {f"graph of {key}": torch.tensor(float(value.requires_grad))
                     for key, value in found.items()}
            gradients, main = [None] * len(by), found["value"].sum()
            if main.requires_grad:
                gradients = torch.autograd.grad(main, by, allow_unused=True)
            out |= graph | {f"gradient {i}".removesuffix(" 0"): torch.zeros(()) if x is None
                            else x.float() for i, x in enumerate(gradients)}
        out["its arguments, left as they were"] = torch.tensor(
            [float(torch.equal(x, arguments[i].detach())) for i, x in before.items()])
        return out
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def evaluate_all(hole, source, seed):
    """-> {case: outputs}"""
    function = load_function(hole, source)
    return {case: evaluate(function, hole.name, case, seed) for case in CASES[hole.name]}


def find_difference(ours, theirs):
    """-> the first difference in words, "" if there is none"""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return "" if ours == theirs else str(theirs)
    for key, value in ours.items():
        other = theirs.get(key)
        if not torch.is_tensor(other):
            return f"{key} is missing"
        if other.shape != value.shape:
            return f"{key} has shape {tuple(other.shape)}, not {tuple(value.shape)}"
        if not torch.allclose(value, other, rtol=1e-3, atol=1e-4, equal_nan=True):
            i = (value - other).abs().nan_to_num(torch.inf).argmax()
            return f"{key}: {other.flatten()[i]:.4g}, not {value.flatten()[i]:.4g}"
    return ""
