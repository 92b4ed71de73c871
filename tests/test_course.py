"""The course's promises: the handout is empty and its tests wait, correct functions get all points
however they are written, known mistakes cost points and are named, and a submission can neither
read, forge nor hang. `python -m course.check` checks more and takes longer.
"""

import ast
import difflib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import bugs, questions
from course.bugs import (BUGS, HELD_BACK, changed_lines, judge_line, judge_test, number_bugs,
                         rewritten_versions, versions, write_program)
from course.cases import evaluate_all
from course.grade import Config, judge, mistaken_outputs, run_submitted
from course.handout import hand_out
from course.holes import HOLES, LATER, RECIPE, ROOT, is_empty
from course.rewrite import rewrite
from course.sandbox import read_object, run_limited, run_student
from course.surgery import empty, find_function, read_changes, split_at_body

HOLE = {hole.name: hole for hole in HOLES}
every_hole = pytest.mark.parametrize("hole", HOLES, ids=HOLE)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "student"
    hand_out(folder, RECIPE)
    return folder


# --- handout --------------------------------------------------------------------------------------

SOURCE = '''
def f(x):
    """Docstring."""
    assert x > 0
    y = x + 1
    return y


def g(x):
    return 2
'''


def test_an_empty_function_keeps_signature_docstring_and_assertions():
    without_f = empty(SOURCE, "f", "two\nlines")
    assert ast.get_docstring(find_function(without_f, "f")) == "Docstring."
    assert "assert x > 0" in without_f and "x + 1" not in without_f and "return 2" in without_f
    assert "    # two\n    # lines\n    raise NotImplementedError" in without_f
    assert "return 2" not in empty(without_f, "g")


def test_the_solved_scripts_do_not_mention_the_course():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("later/*.py")]:
        assert not re.search(r"\bcourse\b|TODO", path.read_text("utf-8")), path


def test_the_handout_is_empty_and_holds_no_solution(student):
    """No line of a body that is long enough to tell something is in any file."""
    texts = {}
    for path in student.rglob("*"):
        if path.suffix in (".py", ".md", ".sh", ".txt"):
            texts[path] = path.read_text("utf-8")
    for hole in RECIPE:
        source = texts[student / hole.file]
        assert is_empty(hole, source) and ast.get_docstring(find_function(source, hole.name))
        assert judge(hole, evaluate_all(hole, source, 0), 0) == (0, "not written yet")
        for line in split_at_body(hole.solved(), hole.name)[1]:
            line = line.partition("#")[0].strip()
            if len(line) > 34:
                assert not [path for path, text in texts.items() if line in text], line
    assert {path.name for path in (student / "course").iterdir()} == {
        "README.md", "__init__.py", "holes.py", "start.py", "waiting.py"}
    assert not (student / "later").exists() and not (student / ".git").exists()


def start(folder, *flags):
    return subprocess.run([sys.executable, "-m", "course.start", *flags], cwd=folder,
                          capture_output=True, text=True)


def test_start_says_what_is_next_and_explains_what_fails(student, tmp_path):
    folder = shutil.copytree(student, tmp_path / "student")
    assert (folder / "AGENTS.md").read_text().startswith("# For coding assistants")
    lines = start(folder).stdout.splitlines()
    assert sum(line.startswith("to write") for line in lines) == 14
    source = (folder / "model.py").read_text()
    line_number = find_function(source, "token_logprobs").lineno
    assert f"next: model.py:{line_number} token_logprobs" in lines
    hint = HOLE["token_logprobs"].hint
    assert hint not in "\n".join(lines) and hint in start(folder, "--hint").stdout

    solved = "\n".join(split_at_body(HOLE["token_logprobs"].solved(), "token_logprobs")[1])
    unwritten = '    raise NotImplementedError("token_logprobs")'
    (folder / "model.py").write_text(source.replace(unwritten, solved))
    lines = start(folder).stdout.splitlines()
    assert "written    4 points  model.py             token_logprobs" in lines
    assert any(re.match(r"next: model.py:\d+ masked_mean", line) for line in lines)

    wrong = solved.replace("tokens[:, 1:, None]", "tokens[:, :-1, None]")
    assert wrong != solved
    (folder / "model.py").write_text(source.replace(unwritten, wrong))
    shown = start(folder).stdout
    assert "This test fails: tests/test_model.py::test_token_logprobs" in shown and "E  " in shown
    (folder / "model.py").write_text(source.replace(unwritten, "    return ("))
    end = start(folder)
    assert end.returncode == 1 and "is not Python" in end.stderr and "Trace" not in end.stderr


def test_the_second_handout_has_the_recipe_solved(tmp_path):
    hand_out(tmp_path / "student", LATER)
    for hole in HOLES:
        text = (tmp_path / "student" / hole.file).read_text("utf-8")
        assert is_empty(hole, text) == (hole in LATER)


def test_tests_that_show_a_bug_are_left_out(student):
    for name, tests in HELD_BACK.items():
        given = (student / "tests" / name).read_text("utf-8")
        for test in tests:
            assert find_function((ROOT / "tests" / name).read_text("utf-8"), test)
            assert f"def {test}(" not in given


WAITING = """
import ppo, dpo, torch
def test_waits(): ppo.gae(*3 * [torch.zeros(1, 1)], 1, 1)
def test_waits_inside():
    try: ppo.gae(*3 * [torch.zeros(1, 1)], 1, 1)
    except NotImplementedError as error: raise SystemExit from error
def test_passes(): pass
def test_fails(): assert False
"""
WAITS_AS_A_WHOLE = "import ppo, torch\nadv = ppo.gae(*3 * [torch.zeros(1, 1)], 1, 1)\n"


def test_tests_of_empty_functions_wait(student):
    (student / "tests" / "test_waiting.py").write_text(WAITING)
    (student / "tests" / "test_whole.py").write_text(WAITS_AS_A_WHOLE)
    process = subprocess.run([sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider",
                              "tests/test_waiting.py", "tests/test_whole.py"],
                             cwd=student, capture_output=True, text=True)
    assert "1 failed, 1 passed, 3 skipped" in process.stdout, process.stdout
    assert "[2] tests/test_waiting.py:0: waits for gae" in process.stdout
    assert "[1] tests/test_whole.py:0: waits for gae" in process.stdout


# --- points for functions -------------------------------------------------------------------------


@every_hole
def test_the_solved_function_gets_all_points(hole):
    for seed in range(5):
        outputs = evaluate_all(hole, hole.solved(), seed)
        assert all(isinstance(values, dict) for values in outputs.values()), outputs
        assert judge(hole, outputs, seed) == (1, "correct")


@every_hole
def test_every_known_mistake_costs_points_and_is_named(hole):
    assert len(mistaken_outputs(hole, 1)) >= 3
    for mistake, outputs in mistaken_outputs(hole, 1).items():
        fraction, feedback = judge(hole, outputs, 1)
        assert fraction < 1 and feedback.startswith(mistake.explanation), mistake


def test_there_are_154_known_mistakes():
    assert len(read_changes("mistakes.txt")) == 154


OTHERWISE = """
def token_logprobs(logits, tokens):
    B, T, V = logits.shape
    flat = F.cross_entropy(logits[:, :-1].float().reshape(-1, V), tokens[:, 1:].reshape(-1),
                           reduction="none")
    return -flat.view(B, T - 1)
---
def masked_mean(x, mask):
    return x[mask.bool()].mean()
---
def lm_loss(logits, tokens, mask):
    targets = tokens[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), targets)
import torch.nn.functional as F
---
def score(per_token, mask):
    return torch.stack([row[m.nonzero().max()] for row, m in zip(per_token, mask)])
---
def preference_loss(score_w, score_l):
    return F.softplus(score_l - score_w).mean()
---
def ranking_loss(scores):
    K = scores.shape[1]
    losses = [preference_loss(scores[:, i], scores[:, j])
              for i in range(K) for j in range(i + 1, K)]
    return sum(losses) / len(losses)
---
def shaped_rewards(score, logp, ref_logp, mask, beta):
    is_last = mask * (mask.flip(1).cumsum(1).flip(1) == 1)
    return (score[:, None] * is_last - beta * (logp - ref_logp)) * mask
---
def gae(reward, value, mask, gamma, lam):
    adv = torch.zeros_like(reward)
    for b in range(len(mask)):
        next_value = next_adv = 0.0
        for t in reversed(mask[b].nonzero().flatten().tolist()):
            delta = reward[b, t] + gamma * next_value - value[b, t]
            adv[b, t] = next_adv = delta + gamma * lam * next_adv
            next_value = value[b, t]
    return adv, (adv + value) * mask
---
def whiten(x, mask):
    inside = x[mask.bool()]
    out = torch.zeros_like(x)
    out[mask.bool()] = (inside - inside.mean()) / inside.std(correction=0)
    return out
---
def policy_loss(logp, old_logp, adv, mask, clip):
    keep = mask.bool()
    change = logp[keep] - old_logp[keep]
    ratio, a = torch.exp(change), adv[keep]
    one, two = -a * ratio, -a * torch.clamp(ratio, 1 - clip, 1 + clip)
    stats = dict(approx_kl=(ratio - 1 - change).mean().detach(),
                 clip_fraction=(two > one).float().mean())
    return torch.max(one, two).mean(), stats
---
HALF = 0.5
def square(x):
    return x * x
def value_loss(value, old_value, ret, mask, clip):
    near = (value - old_value).clamp(-clip, clip) + old_value
    errors = torch.stack([square(value - ret), square(near - ret)])
    return HALF * masked_mean(errors.max(dim=0).values, mask)
---
@torch.no_grad()
def rollout(config, policy, ref, value_fn, score_fn, prompts, eos):
    tokens, response = sample(policy, prompts, config.max_new_tokens, 1.0, eos)
    mask, last = response[:, 1:].clone(), last_index(response)
    ended = tokens.gather(1, last[:, None]).squeeze(1) == eos
    scores = score_fn(tokens, response).masked_fill(~ended, config.missing_eos_score)
    logprobs = token_logprobs(policy(tokens), tokens)
    ref_logprobs = token_logprobs(ref(tokens), tokens)
    values = value_fn(tokens)[:, :-1]
    rewards = shaped_rewards(scores, logprobs, ref_logprobs, mask, config.beta)
    advantages, returns = gae(rewards, values, mask, 1, config.lam)
    episodes = Rollout(tokens, mask, logprobs, values, whiten(advantages, mask), returns)
    return episodes, rollout_stats(scores, ended, logprobs, ref_logprobs, values, returns, mask)
---
def sequence_logprob(model, tokens, mask):
    logp = model(tokens).log_softmax(-1)
    total = torch.zeros(len(tokens))
    for t in range(1, tokens.shape[1]):
        total = total + mask[:, t] * logp[range(len(tokens)), t - 1, tokens[:, t]]
    return total
---
def dpo_loss(pi_w, pi_l, ref_w, ref_l, beta):
    margin = beta * ((pi_w - pi_l) - (ref_w - ref_l))
    stats = dict(accuracy=margin.sign().clamp(min=0).mean(), margin=margin.mean(),
                 reward_chosen=beta * (pi_w - ref_w).mean(),
                 reward_rejected=beta * (pi_l - ref_l).mean())
    return F.softplus(-margin).mean(), {name: x.detach() for name, x in stats.items()}
---
def group_advantages(scores, std):
    centred = scores - scores.mean(1)[:, None]
    return centred / ((centred ** 2).mean(1).sqrt()[:, None] + 1e-4) if std else centred
---
def grpo_loss(logp, old_logp, ref_logp, adv, mask, clip, beta):
    losses = []
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    for i in range(len(mask)):
        keep = mask[i].bool()
        d = ref_logp[i][keep] - logp[i][keep]
        losses.append((beta * (d.exp() - 1 - d) - terms[i][keep]).mean())
    return torch.stack(losses).mean(), stats
---
def dr_grpo_loss(logp, old_logp, adv, mask, clip, max_new_tokens):
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    return -terms.sum() / len(mask) / max_new_tokens, stats
---
def strict(prompt, answer, ended):
    if not ended or loose(prompt, answer, ended) is False or answer.count(".") > 1:
        return False
    sentence = parse(sentences(answer)[0])
    if not sentence or sentence.unknown:
        return False
    if sentence.claim:
        *key, obj, affirmed = sentence.claim
        return affirmed is (FACTS.get(tuple(key)) == obj)
    return True
---
def simpo_loss(pi_w, pi_l, n_w, n_l, beta, gamma):
    margin = beta * pi_w / n_w - beta * pi_l / n_l
    return F.softplus(gamma - margin).mean(), describe(margin)
---
def process_loss(logits, labels, mask):
    losses = F.softplus(logits) - labels * logits
    return losses[mask > 0].mean()
---
def unbiased(p_ab, p_ba):
    return 0.5 + 0.5 * (p_ab - p_ba)
""".strip().split("\n---\n")


@pytest.mark.parametrize("number", range(len(OTHERWISE)))
def test_another_correct_version_gets_all_points(number):
    source = OTHERWISE[number]
    name = [name for name in re.findall(r"^def (\w+)", source, re.M) if name in HOLE][0]
    for seed in range(2):
        assert judge(HOLE[name], evaluate_all(HOLE[name], source, seed), seed) == (1, "correct")


def test_whoever_forgets_the_padding_keeps_the_points_of_whole_rows():
    source = "def whiten(x, mask):\n    return (x - x.mean()) / x.std(correction=0)\n"
    fraction, feedback = judge(HOLE["whiten"], evaluate_all(HOLE["whiten"], source, 0), 0)
    assert fraction == 0.5 and "correct in the case 'whole rows'" in feedback


# --- bad submissions ------------------------------------------------------------------------------

FORGED = """
def whiten(x, mask):
    import os, sys, ppo, torch
    text = open(ppo.__file__).read()
    for name in ("whiten", "policy_loss", "value_loss", "rollout"):
        assert f'raise NotImplementedError("{name}")' in text, "the solution is here"
    frame = sys._getframe()
    while "path" not in frame.f_locals:
        frame = frame.f_back
    torch.save({"whole rows": {"value 0": torch.zeros(5, 8)}}, frame.f_locals["path"])
    os._exit(0)
"""


READS = """
def gae(*inputs):
    import ppo
    return ppo.gae(*inputs)
"""
HANGS = """
def value_loss(*inputs):
    while True: pass
"""


@pytest.mark.parametrize("name, source, seconds, feedback", [
    ("gae", READS, 60, "not written yet"),
    ("whiten", FORGED, 60, "wrong in the case 'whole rows': value 0"),
    ("value_loss", HANGS, 3, "took more than 3 s")], ids=["reads", "forges", "hangs"])
def test_a_submission_can_neither_read_forge_nor_hang(name, source, seconds, feedback):
    """The solved function and later ones are not there; a forged result must be the right one."""
    outputs = run_student(HOLE[name], source, 0, seconds)
    fraction, text = judge(HOLE[name], outputs, 0)
    assert fraction == 0 and feedback in text


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(),
                    reason="needs root, and a Python that any user may run")
def test_another_user_reads_the_copy_and_not_the_solved_files(tmp_path, monkeypatch):
    """Even if those are readable for root's group."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    for name in ("solved", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ppo.py").write_text("")
        (tmp_path / name / "ppo.py").chmod(0o640)
    for path in [tmp_path, *tmp_path.parents][:4]:
        path.chmod(0o755)
    assert run_limited("open('ppo.py')", tmp_path / "copy", 10, "nobody") == 0
    assert run_limited("open('../solved/ppo.py')", tmp_path / "copy", 10, "nobody") == 1


MODULE_CODE = ["EPS, BIG = 1e-8, 1e9", "CACHE = {}\nCACHE['eps'] = 1e-8\nEPS = CACHE['eps']",
               "if True:\n    def eps():\n        return 1e-8\nEPS = eps()",
               "try:\n    from missing import EPS\nexcept ImportError:\n    EPS = 1e-8",
               "from __future__ import annotations\nimport math as m\nEPS: float = m.pow(10, -8)",
               "class Own:\n    eps = 1e-8\nEPS = Own.eps", "for EPS in [1e-8]:\n    pass"]


@pytest.mark.parametrize("code", MODULE_CODE)
def test_module_code_of_a_submission_is_run(code):
    source = f"""{code}\ndef whiten(x, mask):
    mean = masked_mean(x, mask)
    return (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + EPS) * mask\n"""
    assert judge(HOLE["whiten"], evaluate_all(HOLE["whiten"], source, 0), 0) == (1, "correct")


def test_a_byte_order_mark_costs_nothing(tmp_path):
    (tmp_path / "ppo.py").write_text(HOLE["whiten"].solved(), encoding="utf-8-sig")
    outputs = run_submitted(HOLE["whiten"], Config(submission=str(tmp_path)), 0)
    assert judge(HOLE["whiten"], outputs, 0) == (1, "correct")
    for name in ("answers.json", "bugs.json"):
        (tmp_path / name).write_text('{"1": "ppo.py:5"}', encoding="utf-8-sig")
        assert read_object(tmp_path, name) == {"1": "ppo.py:5"}


def test_a_bad_file_costs_its_own_points_and_one_line_explains_why(tmp_path):
    (tmp_path / "pretrain.py").write_text("print 'hello'\n")
    (tmp_path / "ppo.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "reward.py").symlink_to(ROOT / "reward.py")
    (tmp_path / "dpo.py").write_text("#" * 2 ** 21)
    expected = dict(token_logprobs="model.py is missing", gae="ppo.py is not UTF-8",
                    lm_loss="SyntaxError", score="reward.py is a link",
                    dpo_loss="dpo.py has 2,097,152 bytes")
    for name, start in expected.items():
        outputs = run_submitted(HOLE[name], Config(submission=str(tmp_path)), 0)
        fraction, feedback = judge(HOLE[name], outputs, 0)
        assert fraction == 0 and feedback.startswith(start) and "\n" not in feedback


# --- bugs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", BUGS, ids=range(1, 11))
def test_a_bug_is_valid_python_and_its_line_is_recognised(bug):
    compile(versions(bug)[1], bug.place, "exec")
    starter = {line.strip() for path in python_files() for line in path.read_text().splitlines()}
    for seed in ("0 3", "7 1", "2026 10"):
        correct, wrong = [text.splitlines() for text in rewritten_versions(bug, seed)]
        line_number = changed_lines(bug, seed)[1]
        changed = {line_number - 1, *(i for i, line in enumerate(wrong) if line not in correct)}
        assert changed == {line_number - 1}                  # written unlike the starter's line
        assert not {wrong[line_number - 1].strip(), correct[line_number - 1].strip()} & starter
        assert judge_line(bug, f"{bug.place}:{line_number}", seed)[0] == 1
        for answer in (f"{bug.place}:9999", None, {}):
            assert judge_line(bug, answer, seed)[0] == 0


def python_files(folder=ROOT):
    return sorted([*folder.glob("*.py"), *folder.glob("data/**/*.py"), *folder.glob("tools/*.py")])


def changed_between(a, b):
    return sum(line[0] in "+-" for line in difflib.unified_diff(
        a.splitlines(), b.splitlines(), n=0, lineterm=""))


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs of two numbers."""
    folder = tmp_path_factory.mktemp("programs")
    for number, bug in list(number_bugs(3).items())[:2]:
        seed = f"3 {number}"
        write_program(folder / number, bug.place, rewritten_versions(bug, seed)[1], seed)
    return folder


def test_no_diff_shows_where_a_bug_is(programs):
    texts = {}
    for name, folder in (("starter", ROOT), ("1", programs / "1"), ("2", programs / "2")):
        texts[name] = {path.relative_to(folder): path.read_text() for path in python_files(folder)}
    for a, b in (("starter", "1"), ("starter", "2"), ("1", "2")):
        assert texts[a].keys() == texts[b].keys()
        for file in ("ppo.py", "reward.py", "model.py"):
            assert changed_between(texts[a][Path(file)], texts[b][Path(file)]) > 40
        assert sum(changed_between(texts[a][file], texts[b][file]) for file in texts[a]) > 1000


def test_a_program_written_differently_does_the_same(tmp_path):
    """The tests of the project pass on it."""
    solved = rewrite((ROOT / "dpo.py").read_text(), "4")
    write_program(tmp_path / "program", "dpo.py", solved, "4")
    shutil.copytree(ROOT / "tests", tmp_path / "program" / "tests")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_model.py",
         "tests/test_dpo.py", "tests/test_reward.py", "tests/test_tools.py"],
        cwd=tmp_path / "program", capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-2000:]


def test_programs_differ_in_most_functions_even_if_names_are_numbered():
    """So the one function that a bug changes does not stand out."""
    def number_names(source):
        functions = {}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                numbers = {}
                for name in ast.walk(node):
                    if isinstance(name, ast.Name):
                        name.id = str(numbers.setdefault(name.id, len(numbers)))
                functions[node.name] = ast.dump(node)
        return functions
    for file in ("ppo.py", "data/batches.py"):
        source = (ROOT / file).read_text()
        first, second = [number_names(rewrite(source, seed)) for seed in ("7 1", "7 2")]
        different = sum(first[name] != second[name] for name in first)
        assert different > len(first) / 3, file


def test_rewriting_changes_no_order_of_evaluation():
    source = """def f(log):
    def call(name, *values):
        log.append(name)
        return len(values)
    y = call("a", call("b", 1), call("c"))
    call("d", call("e"))
    z = call("f") + call("g") if y < 3 else 5
    w = str(call("j")).count(str(call("k")))
    return call("h", call("i")) + y + z + w
"""
    expected, results = None, set()
    for seed in range(8):
        text, names, log = rewrite(source, seed), {}, []
        exec(text, names)
        results.add((names["f"](log), tuple(log)))
    assert results == {(1 + 2 + 0 + 1, tuple("bcaedfgjkih"))}


def test_rewriting_turns_comparisons_round_correctly():
    source = "def f(a, b):\n    return [a < b, a > b, a <= b, a >= b, a < b < 3]\n"
    texts = set()
    for seed in range(8):
        text, names = rewrite(source, seed), {}
        exec(text, names)
        texts.add(text)
        for a, b in ((1, 2), (2, 1), (2, 2)):
            assert names["f"](a, b) == [a < b, a > b, a <= b, a >= b, a < b < 3]
    assert len(texts) > 3


def test_rewriting_keeps_what_others_see_and_the_comments_of_flags():
    source = """import sys
@dataclass
class Config:
    lr: float = 1.0     # the rate
def double(x, scale=2):
    y = x * scale
    def inner(z):
        nonlocal y
        y += z
    inner(1)
    return [y for y in (y,)] + [len(sys.argv) * 0]
def other(a):
    return double(a)
"""
    for seed in range(5):
        text, names = rewrite(source, seed), {"dataclass": lambda cls: cls}
        exec(text, names)
        assert names["double"](x=3, scale=4) == [13, 0] and names["other"](1) == [3, 0]
        assert "lr: float = 1.0     # the rate" in text and " y = " not in text


@pytest.mark.parametrize("on_correct, on_bug, points", [
    (0, 1, 2), (0, 0, 0), (1, 1, 0), (0, 2, 0), (4, 1, 0), (None, 1, 0), (0, None, 0)])
def test_a_test_counts_if_it_passes_on_the_correct_program_and_fails_on_the_bug(
        tmp_path, monkeypatch, on_correct, on_bug, points):
    """Exit statuses of pytest: 0 passed, 1 failed, others did not run; None took too long."""
    def run_test(program, name, user):
        correct, _ = rewritten_versions(BUGS[0], "5")
        is_correct = (program / BUGS[0].place).read_text() == correct
        return on_correct if is_correct else on_bug
    monkeypatch.setattr(bugs, "run_test", run_test)
    test_file = "def test_bug_1():\n    assert True\n"
    assert judge_test("1", BUGS[0], test_file, tmp_path, "5")[0] == points
    assert judge_test("2", BUGS[0], test_file, tmp_path, "5") == (0, "no test_bug_2")


# --- questions ------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """The files of a finished run that the questions read, with made-up figures."""
    results = dict(rm=dict(reads_wrong=0.6))
    for name, i, loss in (("sft", 0, 2), ("ppo_ptx", 1, 1.96), ("ppo", 2, 2.06)):
        results[name] = dict(correct=0.5 + i / 10, correct_07=0.6 + 0.075 * i, lm_loss=loss)
    for folder, kl, utility in ((tmp_path / "out", 1.25, 2.5), (tmp_path / "out/free", 5.5, 2)):
        (folder / "metrics").mkdir(parents=True)
        log = [dict(step=0, kl=kl), dict(step=-1, utility=utility, accuracy=0.8)]
        for stage in ("ppo", "reward"):
            path = folder / "metrics" / f"{stage}.jsonl"
            path.write_text("\n".join(json.dumps(line) for line in log))
    (tmp_path / "out/results.json").write_text(json.dumps(results))
    (tmp_path / "out/best_of.json").write_text(json.dumps([dict(n=4, kl=0.6), dict(n=8, kl=1.1)]))
    return tmp_path


EXPECTED = [math.log(2), 1.25, 0.8, 0.6, 0.06, -0.04, -0.05, 5.5, -0.5, 1.1]


def test_a_figure_must_be_that_of_the_run(run):
    figures = questions.read_figures(run / "out")
    assert list(figures.values()) == pytest.approx(EXPECTED)
    for number, value in figures.items():
        assert questions.judge(number, figures, {"figure": round(value, 3)})[0] == 2
        for answer in ({"figure": value + 0.1}, None, {}, {"figure": "0.5"}, {"figure": math.nan},
                       {"figure": 10 ** 400}):
            assert questions.judge(number, figures, answer)[0] == 0


@pytest.mark.parametrize("number, value", [(2, -0.1), (3, 0.4), (5, -0.1), (6, 0.3), (8, 0.2),
                                           (9, 0.5)])
def test_a_run_that_cannot_be_correct_loses_a_point(run, number, value):
    figures = questions.read_figures(run / "out") | {number: value}
    points, feedback = questions.judge(number, figures, {"figure": value})
    assert points == 1 and "look for a bug" in feedback


def test_a_run_without_a_figure_gives_no_points(run):
    for value in ("0.7", [0.7], math.nan, math.inf, 10 ** 400, None):
        figures = questions.read_figures(run / "out") | {3: value}
        assert questions.judge(3, figures, {"figure": 0.7}) == (0, "the run has no such figure")


def test_answers_are_graded_question_by_question(run, capsys):
    (run / "answers.json").write_text(json.dumps({"1": {"figure": 0.693}, "4": {"figure": 0.7}}))
    questions.grade(questions.Config(grade=str(run)))
    assert " 2.00 of 20; " in capsys.readouterr().out
    (run / "out/metrics/reward.jsonl").unlink()
    questions.grade(questions.Config(grade=str(run)))
    assert "ValueError: metrics/reward.jsonl is missing" in capsys.readouterr().out


def test_the_sheet_lists_all_functions_and_questions():
    sheet = (ROOT / "course" / "README.md").read_text("utf-8")
    assert re.findall(r"^(\d+)\. ", sheet, re.M) == [str(n) for n in range(1, 11)]
    for hole in RECIPE:
        assert f"`{hole.name}` | {hole.points} |" in sheet
