"""The course's promises in seconds: what is handed out is empty and waits, right answers get all
points however they are written, known mistakes cost some and are called by their names, and what is
handed in cannot read, forge or hang. `python -m course.check` does the same at length."""

import ast
import json
import re
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from course import bugs, questions
from course.bugs import BUGS, HELD_BACK, find_lines, judge_line, judge_test, put_in
from course.grade import Config, grade_one, judge, known, run_student, solved
from course.handout import hand_out
from course.holes import HOLES, LATER, RECIPE, ROOT, is_empty
from course.mistakes import MISTAKES
from course.outputs import evaluate_all
from course.surgery import cut, empty, find

HOLE = {hole.name: hole for hole in HOLES}
by_name = pytest.mark.parametrize("hole", HOLES, ids=[hole.name for hole in HOLES])


def read(hole):
    return (ROOT / hole.file).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "student"
    hand_out(folder)
    return folder


# --- what is handed out ---------------------------------------------------------------------------


def test_an_empty_function_keeps_its_signature_docstring_and_assertions():
    source = textwrap.dedent('''
        def f(x):
            """What it is."""
            assert x > 0
            y = x + 1
            return y


        def g(x):
            return 2
        ''')
    once = empty(source, "f", "two\nlines")
    assert ast.get_docstring(find(once, "f")) == "What it is." and "assert x > 0" in once
    assert "x + 1" not in once and "    # two\n    # lines\n    raise NotImpl" in once
    assert "return 2" in once and "return 2" not in empty(once, "g")
    with pytest.raises(AssertionError):
        find(source, "h")


def test_the_solved_scripts_know_nothing_of_the_course():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py"), *ROOT.glob("tools/*.py"),
                 *ROOT.glob("later/*.py")]:
        assert not re.search(r"\bcourse\b|NotImplementedError|TODO|solution [a-z]* here",
                             path.read_text(encoding="utf-8"), re.I), path


def test_what_is_handed_out_is_empty_and_holds_no_solution(student):
    """No line of a body, if it is long enough to say something, stands in any file."""
    texts = {path: path.read_text(encoding="utf-8") for path in student.rglob("*")
             if path.suffix in (".py", ".md", ".sh", ".txt", ".jsonl")}
    for hole in RECIPE:
        given = texts[student / hole.file]
        assert is_empty(hole, given) and ast.get_docstring(find(given, hole.name))
        assert judge(hole, evaluate_all(hole, given, 0), 0) == (0, "not written yet")
        for line in cut(read(hole), hole.name)[1]:
            line = line.partition("#")[0].strip()
            if len(line) > 34:
                assert not [path for path, text in texts.items() if line in text], line
    assert {path.name for path in (student / "course").iterdir()} == {
        "README.md", "__init__.py", "holes.py", "waiting.py"}
    assert not (student / "later").exists() and not (student / ".git").exists()


def test_the_second_hand_out_has_the_recipe_solved(tmp_path):
    hand_out(tmp_path / "student", later=True)
    for hole in HOLES:
        text = (tmp_path / "student" / hole.file).read_text(encoding="utf-8")
        assert is_empty(hole, text) == (hole in LATER)


def test_tests_that_show_a_bug_are_held_back(student):
    for name, tests in HELD_BACK.items():
        ours, theirs = ((folder / "tests" / name).read_text(encoding="utf-8")
                        for folder in (ROOT, student))
        assert all(find(ours, test) for test in tests)
        assert not re.search("|".join(rf"def {test}\(" for test in tests), theirs)


def test_tests_of_what_is_not_written_wait_and_the_others_pass(student, tmp_path):
    """None fails while the first functions are written. `python -m course.check holes` fills them
    one by one, for all tests."""
    folder = shutil.copytree(student, tmp_path / "student")
    for path in {hole.file for hole in RECIPE}:
        text = (ROOT / path).read_text(encoding="utf-8")
        for hole in RECIPE[3:]:
            text = empty(text, hole.name) if hole.file == path else text
        (folder / path).write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           *(f"tests/test_{name}.py" for name in ("sft", "reward", "dpo")),
                           "-k", "lm_loss or preference_loss or dpo_loss"],
                          cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    counts = {state: int(n) for n, state in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert counts.keys() == {"passed"} and counts["passed"] >= 3, done.stdout
    assert set(re.findall(r"waits for (\w+)", done.stdout)) == {
        "preference_loss", "dpo_loss"}, done.stdout


# --- points ---------------------------------------------------------------------------------------


@by_name
def test_the_solved_function_gets_all_points(hole):
    for seed in range(8):          # `python -m course.check mistakes --seeds 20` tries more
        assert judge(hole, evaluate_all(hole, read(hole), seed), seed) == (1, "right")


@by_name
def test_every_known_mistake_costs_points_and_is_called_by_its_name(hole):
    for mistake, returned in known(hole, 1).items():
        share, says = judge(hole, returned, 1)
        assert share < 1 and says.startswith(mistake.says), mistake
    assert solved(hole, 1) and len(known(hole, 1)) >= 3


def test_there_are_more_than_a_hundred_of_them():
    assert len(MISTAKES) >= 100 and {m.hole for m in MISTAKES} == set(HOLE)


OTHERWISE = '''
def token_logprobs(logits, tokens):
    B, T, V = logits.shape
    flat = F.cross_entropy(logits[:, :-1].float().reshape(-1, V), tokens[:, 1:].reshape(-1),
                           reduction="none")
    return -flat.view(B, T - 1)
---
def token_logprobs(logits, tokens):
    logits = logits.float()
    chosen = (logits[:, :-1] * F.one_hot(tokens[:, 1:], logits.shape[-1])).sum(-1)
    return chosen - logits[:, :-1].logsumexp(-1)
---
def token_logprobs(logits, tokens):
    rows = [torch.stack([logits[b, t].float().log_softmax(0)[tokens[b, t + 1]]
                         for t in range(tokens.shape[1] - 1)]) for b in range(len(tokens))]
    return torch.stack(rows)
---
def masked_mean(x, mask):
    return x[mask.bool()].mean()
---
def masked_mean(x, mask):
    return torch.where(mask > 0, x, torch.zeros_like(x)).sum() / mask.count_nonzero()
---
def lm_loss(logits, tokens, mask):
    V = logits.shape[-1]
    wanted = tokens[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return F.cross_entropy(logits[:, :-1].reshape(-1, V).float(), wanted.reshape(-1))
import torch.nn.functional as F
---
def preference_loss(score_w, score_l):
    return F.softplus(score_l - score_w).mean()
---
def preference_loss(score_w, score_l):
    return F.binary_cross_entropy_with_logits(score_w - score_l, torch.ones_like(score_w))
---
def ranking_loss(scores):
    K = scores.shape[1]
    losses = [preference_loss(scores[:, i], scores[:, j])
              for i in range(K) for j in range(i + 1, K)]
    return sum(losses) / len(losses)
---
def ranking_loss(scores):
    gaps = scores[:, :, None] - scores[:, None, :]
    i, j = torch.triu_indices(scores.shape[1], scores.shape[1], offset=1)
    return -F.logsigmoid(gaps[:, i, j]).mean(dim=1).mean()
---
def score(per_token, mask):
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return per_token[range(len(mask)), last]
---
def score(per_token, mask):
    return torch.stack([row[m.nonzero().max()] for row, m in zip(per_token, mask)])
---
def shaped_rewards(score, logp, ref_logp, mask, beta):
    reward = torch.where(mask > 0, beta * (ref_logp - logp), torch.zeros(()))
    for b in range(len(mask)):
        reward[b, int(mask[b].nonzero().max())] += score[b]
    return reward
---
def shaped_rewards(score, logp, ref_logp, mask, beta):
    is_last = mask * (mask.flip(1).cumsum(1).flip(1) == 1)
    return (score[:, None] * is_last - beta * (logp - ref_logp)) * mask
---
def gae(reward, value, mask, gamma, lam):
    adv = torch.zeros_like(reward)
    for b in range(len(mask)):
        at, after, following = mask[b].nonzero().flatten().tolist(), 0.0, 0.0
        for t in reversed(at):
            following = reward[b, t] + gamma * after - value[b, t] + gamma * lam * following
            adv[b, t], after = following, value[b, t]
    return adv, (adv + value) * mask
---
def gae(reward, value, mask, gamma, lam):
    value = value * mask
    T = reward.shape[1]
    following = torch.cat([value[:, 1:], torch.zeros(len(value), 1)], dim=1)
    delta = (reward + gamma * following - value) * mask
    away = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    weights = torch.where(away >= 0, (gamma * lam) ** away.clamp(min=0).float(), torch.zeros(()))
    adv = (delta @ weights) * mask
    return adv, adv + value
---
def whiten(x, mask):
    kept = x[mask.bool()]
    out = torch.zeros_like(x)
    out[mask.bool()] = (kept - kept.mean()) / kept.std(correction=0)
    return out
---
def whiten(x, mask):
    n = mask.sum()
    mean = (x * mask).sum() / n
    variance = (x ** 2 * mask).sum() / n - mean ** 2
    return torch.where(mask > 0, (x - mean) / (variance + 1e-8).sqrt(), torch.zeros(()))
---
def policy_loss(logp, old_logp, adv, mask, clip):
    keep = mask.bool()
    change = logp[keep] - old_logp[keep]
    ratio, a = torch.exp(change), adv[keep]
    one, two = -a * ratio, -a * torch.clamp(ratio, 1 - clip, 1 + clip)
    stats = dict(approx_kl=(ratio - 1 - change).mean().detach(),
                 clipfrac=(two > one).float().mean(), ratio_error=(ratio - 1).abs().max().detach())
    return torch.max(one, two).mean(), stats
---
def policy_loss(logp, old_logp, adv, mask, clip):
    log_ratio = torch.where(mask > 0, logp - old_logp, torch.zeros(()))
    ratio = log_ratio.exp()
    bound = torch.where(adv > 0, ratio.clamp(max=1 + clip), ratio.clamp(min=1 - clip))
    with torch.no_grad():
        stats = {"clipfrac": masked_mean((bound != ratio).float(), mask),
                 "approx_kl": masked_mean(log_ratio.expm1() - log_ratio, mask),
                 "ratio_error": (ratio - 1).abs().max(), "ratio": ratio.mean()}
    return -(bound * adv * mask).sum() / mask.sum(), stats
---
def value_loss(value, old_value, ret, mask, clip):
    if clip is None:
        return ((value - ret) ** 2 * mask).sum() / (2 * mask.sum())
    low, high = old_value - clip, old_value + clip
    near = torch.max(torch.min(value, high), low)
    worse = torch.max((value - ret).abs(), (near - ret).abs())
    return masked_mean(worse ** 2, mask) / 2
---
HALF = 0.5


def square(x):
    return x * x


def value_loss(value, old_value, ret, mask, clip):
    limit = float("inf") if clip is None else clip
    moved = (value - old_value).clamp(-limit, limit) + old_value
    errors = torch.stack([square(value - ret), square(moved - ret)])
    return HALF * masked_mean(errors.max(dim=0).values, mask)
---
@torch.no_grad()
def rollout(config, policy, ref, reward_model, value_fn, prompts, eot, generator, judge=judge):
    tokens, response = sample(policy, prompts, config.max_new_tokens, eos=eot)
    mask = response[:, 1:].clone()
    ended = ((tokens == eot) & (response > 0)).any(dim=1).float()
    logp, ref_logp = token_logprobs(policy(tokens), tokens), token_logprobs(ref(tokens), tokens)
    value = value_fn(tokens)[:, :-1]
    scores = judge(reward_model, tokens, response, ended, config.missing_end)
    reward = shaped_rewards(scores, logp, ref_logp, mask, config.beta)
    adv, ret = gae(reward, value, mask, 1.0, config.lam)
    lengths = [int(row.nonzero().max()) + 1 for row in response]
    return (Rollout(tokens, mask, logp, ref_logp, value, whiten(adv, mask), ret, scores, ended),
            batch_by_length(lengths, config.minibatch, generator))
---
def rollout(config, policy, ref, reward_model, value_fn, prompts, eot, generator, judge=judge):
    tokens, response = sample(policy, prompts, config.max_new_tokens, 1.0, eot, generator)
    mask, last = response[:, 1:], last_index(response)
    ended = (tokens.gather(1, last[:, None]).squeeze(1) == eot).float()
    minibatches = batch_by_length((last + 1).tolist(), config.minibatch, generator)
    scores, grids = ended.clone(), [torch.zeros_like(mask) for _ in range(3)]
    for rows in minibatches:
        x = tokens[rows]
        scores[rows] = judge(reward_model, x, response[rows], ended[rows], config.missing_end)
        for grid, net in zip(grids, (policy, ref)):
            grid[rows] = token_logprobs(net(x), x)
        grids[2][rows] = value_fn(x)[:, :-1]
    reward = shaped_rewards(scores, grids[0], grids[1], mask, config.beta)
    adv, ret = gae(reward, grids[2], mask, 1, config.lam)
    return Rollout(tokens, mask, *grids, whiten(adv, mask), ret, scores, ended), minibatches
---
def sequence_logprob(model, tokens, mask):
    logp = model(tokens).log_softmax(-1)
    total = torch.zeros(len(tokens))
    for t in range(1, tokens.shape[1]):
        total = total + mask[:, t] * logp[range(len(tokens)), t - 1, tokens[:, t]]
    return total
---
def sequence_logprob(model, tokens, mask):
    per_token = token_logprobs(model(tokens), tokens)
    return torch.einsum("bt,bt->b", per_token, mask[:, 1:])
---
def dpo_loss(pi_w, pi_l, ref_w, ref_l, beta):
    margin = beta * ((pi_w - pi_l) - (ref_w - ref_l))
    right = torch.heaviside(margin.detach(), torch.tensor(0.5))
    stats = dict(rejected=(pi_l - ref_l).mean().detach(), chosen=(pi_w - ref_w).mean().detach(),
                 margin=margin.mean().detach(), accuracy=right.mean())
    return F.softplus(-margin).mean(), stats
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
'''.strip().split("\n---\n")


def test_there_are_at_least_twenty_other_ways():
    assert len(OTHERWISE) >= 20


@pytest.mark.parametrize("number", range(len(OTHERWISE)))
def test_another_way_to_be_right_gets_all_points(number):
    source = OTHERWISE[number]
    hole = HOLE[re.search(r"^def (\w+)\((?!x\):)", source, re.M)[1]]
    for seed in range(2):
        assert judge(hole, evaluate_all(hole, source, seed), seed) == (1, "right")


def test_padding_forgotten_keeps_the_points_of_whole_rows():
    hole = HOLE["whiten"]
    source = "def whiten(x, mask):\n    return (x - x.mean()) / x.std(correction=0)\n"
    share, says = judge(hole, evaluate_all(hole, source, 0), 0)
    assert share == 0.5 and "right in the case 'whole rows'" in says
    assert says.startswith("padding is in mean and variance") or "where to look" in says


# --- bad submissions ------------------------------------------------------------------------------

FORGED = '''
def whiten(x, mask):
    import os, sys, ppo, torch
    text = open(ppo.__file__).read()
    for name in ("whiten", "policy_loss", "value_loss", "rollout"):
        assert f'raise NotImplementedError("{name}")' in text, "there it is"
    frame = sys._getframe()
    while "path" not in frame.f_locals:
        frame = frame.f_back
    torch.save({"whole rows": {"value": torch.zeros(5, 8)}}, frame.f_locals["path"])
    os._exit(0)
'''
CHEATS = {       # what is handed in, seconds for it, what is said
    "gae": ("def gae(*given):\n    import ppo\n    return ppo.gae(*given)\n", 60, "RecursionError"),
    "whiten": (FORGED, 60, "wrong in the case 'whole rows': value"),
    "value_loss": ("def value_loss(*given):\n    while True: pass\n", 4, "took more than 4 s")}


def test_a_submission_cannot_call_read_forge_or_hang():
    """Neither the solved function of the same name nor those after it are there to be called or
    read, and a result that a student writes has to be the right one."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: run_student(HOLE[name], CHEATS[name][0], 0,
                                                       CHEATS[name][1]), CHEATS))
    for name, theirs in zip(CHEATS, found):
        share, says = judge(HOLE[name], theirs, 0)
        assert share == 0 and CHEATS[name][2] in says, (name, says)


def test_a_bad_file_gets_one_line_and_costs_its_own_points(tmp_path):
    (tmp_path / "sft.py").write_text("print 'hello'\n")
    (tmp_path / "ppo.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "reward.py").symlink_to(ROOT / "reward.py")
    (tmp_path / "dpo.py").write_text("#" * 2 ** 21)
    config = Config(submission=str(tmp_path))
    for name, words in dict(token_logprobs="model.py is missing", lm_loss="sft.py:1 is no Python 3",
                            gae="ppo.py is not UTF-8", score="reward.py is a link",
                            dpo_loss="dpo.py has 2,097,152 bytes").items():
        points, says = grade_one(HOLE[name], config, 0)
        assert points == 0 and says.startswith(words) and "\n" not in says


# --- bugs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(len(BUGS)))
def test_a_bug_is_one_place_whose_line_and_fix_are_known(n, tmp_path):
    bug, config = BUGS[n], bugs.Config()
    compile(put_in(bug), bug.file, "exec")
    right, lines = (ROOT / bug.file).read_text(encoding="utf-8"), find_lines(bug)
    fix = right.splitlines()[lines[1] - 1]
    answer = {"line": f"{bug.file}:{lines[1]}", "fix": fix}
    assert judge_line(bug, answer, tmp_path, config)[0] == 1
    assert judge_line(bug, answer | {"fix": ")" + fix}, tmp_path, config)[0] == 0.5
    assert judge_line(bug, {"line": f"{bug.file}:9999", "fix": fix}, tmp_path, config)[0] == 0
    assert judge_line(bug, {}, tmp_path, config)[0] == 0


def test_there_are_ten():
    assert len(BUGS) == 10


@pytest.mark.parametrize("on_right, on_bug, points", [
    (0, 1, 2), (0, 0, 0), (1, 1, 0), (0, 2, 0), (4, 1, 0), (None, 1, 0), (0, None, 0)])
def test_a_test_counts_if_it_tells_right_from_wrong(tmp_path, monkeypatch, on_right, on_bug,
                                                    points):
    """Exit statuses of pytest: 0 passed, 1 failed, others: it did not run. None: too slow."""
    text = "def test_bug_1():\n    assert True\n"

    def fake(folder, tests, config):
        assert (folder / "test_bugs.py").read_text() == text and tests == [
            "test_bugs.py::test_bug_1"]
        same = (folder / BUGS[0].file).read_text() == (ROOT / BUGS[0].file).read_text()
        return on_right if same else on_bug

    monkeypatch.setattr(bugs, "run_tests", fake)
    assert judge_test("1", BUGS[0], text, tmp_path, bugs.Config())[0] == points
    assert judge_test("2", BUGS[0], text, tmp_path, bugs.Config()) == (0, "no test_bug_2")


# --- questions ------------------------------------------------------------------------------------


def test_a_figure_has_to_be_that_of_the_run(copy):
    (copy / "free" / "metrics").mkdir(parents=True)
    shutil.copy(copy / "metrics" / "ppo.jsonl", copy / "free" / "metrics")
    assert questions.doubt(copy) == ""
    for question in questions.QUESTIONS:
        question, value = question._replace(within=None), question.right(copy)
        assert questions.judge(question, {"figure": round(value, 3)}, copy)[0] == 2
        assert questions.judge(question, {"figure": value + 0.1 + abs(value)}, copy)[0] == 0
        assert questions.judge(question._replace(within=(90, 99)), {"figure": value}, copy)[0] == 1
        for bad in (None, {}, {"figure": "0.5"}, {"figure": float("nan")}, []):
            assert questions.judge(question, bad, copy)[0] == 0


def test_a_run_that_was_not_run_is_doubted(copy):
    results = json.loads((copy / "results.json").read_text())
    results["ppo"]["gold"] += 1
    (copy / "results.json").write_text(json.dumps(results))
    assert "are worth" in questions.doubt(copy)
    results["seed"] += 1
    (copy / "results.json").write_text(json.dumps(results))
    assert "seed" in questions.doubt(copy)


def test_the_sheet_has_the_questions_and_the_table():
    sheet = (ROOT / "course" / "README.md").read_text(encoding="utf-8")
    asked = re.findall(r"^(\d+)\. ", sheet, re.M)
    assert asked == [str(n) for n in range(1, len(questions.QUESTIONS) + 1)]
    for hole in RECIPE:
        assert f"`{hole.name}` | {hole.points} | {hole.minutes} |" in sheet
