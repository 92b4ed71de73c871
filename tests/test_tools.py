"""What no paper mentions: threads, interrupts, flags, locks, consoles and pipes; and the optimiser
that is written by hand, against torch's and against the singular values."""

import ast
import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import tools               # before torch: it says how torch's threads wait
import torch

import chat
import compare
import dpo
import eval as evaluation
import ppo
import reward
import sft
from conftest import call
from data.tokenizer import Tokenizer, train_ranks
from model import GPT, GPTConfig
from tools import flags
from tools.checkpoints import save
from tools.flags import join_negative, lock, read_flags, run
from tools.optimizers import Muon, orthogonalise

ROOT = Path(__file__).parents[1]
SCRIPTS = [path for pattern in ("*.py", "data/**/*.py", "tools/*.py", "experiments/*.py",
                                "later/*.py", "course/*.py") for path in ROOT.glob(pattern)]
SCRIPTS += [ROOT / "tests/conftest.py", ROOT / "tests/bench.py"]
TRAINING = "--demonstrations 32 --documents 50 --epochs 1 --device cpu"


BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def python(command, *more, stdin="", **environment):
    """A command of the project in a process of its own. -> what it did"""
    return subprocess.run([sys.executable, *command.split(), *more], cwd=ROOT, capture_output=True,
                          input=stdin.encode(), env=BUFFERED | environment, timeout=300)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Something to begin with, tiny and random, as every stage but pretraining needs it."""
    monkeypatch.setattr(sys, "argv", [])
    torch.manual_seed(0)
    tokenizer = Tokenizer(train_ranks("the red hat and the blue hat", 270))
    gpt = GPT(GPTConfig(tokenizer.vocab_size, 256, n_layer=1, n_head=2, n_embd=8))
    for name in ("base", "sft"):
        save(tmp_path / f"{name}.pt", gpt, gpt.config, tokenizer)
    return tmp_path


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """Also where a shell runs the tests in the background, with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- threads --------------------------------------------------------------------------------------


def imported(path):
    """The names of all that a file imports, in order; not inside functions."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def meets_first(path):
    """What an import of the file comes to first, however deep: tools or torch; None if neither."""
    for name in imported(path):
        if (top := name.partition(".")[0]) in ("tools", "torch"):
            return top
        own = ROOT / f"{name.replace('.', '/')}.py"
        if own.is_file() and (found := meets_first(own)):
            return found


def test_every_script_imports_tools_before_torch(tmp_path):
    assert len(SCRIPTS) > 30 and not [path for path in SCRIPTS if meets_first(path) == "torch"]
    for name, source in (("torch", "import torch\nfrom tools.flags import check\n"),
                         ("tools", "import json\nimport model\nimport torch\n")):
        path = tmp_path / f"{name}_first.py"
        path.write_text(source)
        assert meets_first(path) == name


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


@pytest.mark.parametrize("script", ["sft.py", "eval.py", "chat.py"])
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
    code = "import os, tools; print(*map(os.getenv, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')))"
    kept = {name: value for name, value in os.environ.items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for given, found in ({}, "passive 1000"), ({"OMP_WAIT_POLICY": "active"}, "active None"):
        shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, env=kept | given,
                               capture_output=True, check=True).stdout
        assert shown.strip() == found


# --- interrupts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sft.py", "compare.py", "reward.py", "ppo.py", "dpo.py",
                                     "eval.py", "chat.py", "-m tools.convert"])
def test_an_interrupt_while_torch_is_imported_is_no_traceback(tmp_path, command):
    """A torch that takes a minute, a numpy too, and somebody who does not wait for them."""
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    done = python(command, "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 130, done
    assert done.stdout == b"" and done.stderr.strip() == b"interrupted"


@pytest.mark.parametrize("module, resumes", [
    (sft, True), (reward, True), (ppo, True), (dpo, True),
    (compare, False), (evaluation, False), (chat, False)])
def test_an_interrupt_speaks_of_resume_where_there_is_such_a_flag(monkeypatch, capsys, module,
                                                                  resumes):
    def interrupted(config):
        os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(module, "start", interrupted)
    monkeypatch.setattr(flags, "known", set())
    monkeypatch.setattr(sys, "argv", ["a.py"] + ["out/ppo.pt"] * (module is chat))
    with pytest.raises(SystemExit) as stop:
        run(module.main)
    said = capsys.readouterr().err
    assert stop.value.code == 130 and "interrupted" in said and said.count("\n") == 2
    assert ("--resume" in said) == resumes


def test_an_interrupt_of_a_chat_speaks_of_no_resume(folder):
    """At the prompt, as from a keyboard."""
    process = subprocess.Popen([sys.executable, "chat.py", str(folder / "sft.pt")], cwd=ROOT,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    seen = b""
    while not seen.endswith(b"> "):                                    # now it waits for a line
        seen += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == b"interrupted; what was saved before is whole"


# --- flags ----------------------------------------------------------------------------------------


def test_a_negative_number_may_stand_behind_its_flag():
    """argparse takes -1e3 for a flag; only numbers are joined, and only to a flag."""
    assert join_negative(["--missing-end", "-1e3"]) == ["--missing-end=-1e3"]
    assert join_negative(["--a", "-.5", "--b", "-2.5e-3", "--c", "-7"]) == [
        "--a=-.5", "--b=-2.5e-3", "--c=-7"]
    for alone in (["--a", "1", "-1"], ["-1"], ["--a", "-x"], ["--a", "--b"], ["--a", "-1e3x"], []):
        assert join_negative(alone) == alone
    assert join_negative(["--a", "-1", "-2"]) == ["--a=-1=-2"]              # which is no number


@pytest.mark.parametrize("words, value", [
    ("--missing-end -1e3", -1000), ("--missing-end -3", -3), ("--missing-end=-1e3", -1000),
    ("--missing-end -.5 --beta 2", -0.5), ("--missing-end 2", 2)])
def test_a_negative_number_arrives(monkeypatch, words, value):
    monkeypatch.setattr(sys, "argv", ["ppo.py", *words.split()])
    assert read_flags("", ppo.Config).missing_end == value


@pytest.mark.parametrize("words, named", [
    ("--missing-ent -1e3", "--missing-ent"), ("--missing -1e3", "--missing"),
    ("--missing-end -1e3 --betta -1", "--betta"), ("--missing-end -1e3x", "--missing-end"),
    ("--missing-end", "--missing-end"), ("--missing-end -1 -2", "--missing-end"), ("-1e3", "-1e3"),
    ("--missing-end -1e999", "--missing-end"), ("--resume -1", "--resume"),
    ("--beta -1", "--beta -1"), ("--iterations -5", "--iterations -5")])
def test_a_misspelt_flag_is_refused_also_before_a_negative_number(monkeypatch, words, named):
    monkeypatch.setattr(sys, "argv", ["ppo.py", *words.split()])
    with pytest.raises(SystemExit) as stop:
        run(ppo.main)
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    assert named in stop.value.code, stop.value.code


@pytest.mark.parametrize("words, kind", [
    ("", sft.Finetune), ("--stage sft --epochs 3", sft.Finetune), ("--epochs 3", sft.Finetune),
    ("--stage pretrain --steps 3", sft.Pretrain), ("--steps 3 --stage=pretrain", sft.Pretrain)])
def test_the_stage_says_which_flags_there_are(monkeypatch, words, kind):
    monkeypatch.setattr(sys, "argv", ["sft.py", *words.split()])
    assert type(read_flags("", sft.Finetune, sft.Pretrain)) is kind


# --- locks ----------------------------------------------------------------------------------------

# sft.py that waits for a line on its first step, and a program that holds a lock and nothing else
WAITING = """if 1:
    import sys
    import sft
    from tools.flags import run
    from tools.steps import Steps
    log = Steps.log
    def wait(self, step, **values):
        if step == 0:
            print("holding", flush=True)
            sys.stdin.readline()
        log(self, step, **values)
    Steps.log = wait
    run(sft.main)
"""
HOLDING = """if 1:
    import sys
    from tools.flags import lock
    lock(sys.argv[1], "sft")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_run(code, *words):
    """A process that holds a lock; it is gone afterwards."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline() == b"holding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_run_of_a_stage_in_one_folder_ends_with_one_line_while_the_first_goes_on(folder):
    began = (folder / "sft.pt").read_bytes()
    with another_run(WAITING, "--out", folder, *TRAINING.split()) as first:
        second = python(f"sft.py --out {folder} {TRAINING} --lr 0.1")
        assert second.returncode == 1 and second.stdout == b""
        assert second.stderr.decode() == (
            f"error: another run writes sft in {folder}; wait for it, or give one of them another "
            "--out\n")
        assert first.poll() is None and (folder / "sft.pt").read_bytes() == began
        said, _ = first.communicate(b"\n", timeout=300)
    assert first.returncode == 0 and said.startswith(f"{folder}/sft.pt: held-out loss".encode())
    lines = (folder / "metrics/sft.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(len(lines) - 1), -1]
    call(sft, folder, TRAINING)                                       # now it is free again


def test_the_lock_of_a_run_that_was_killed_is_gone_with_it(folder):
    with another_run(HOLDING, folder) as first:
        with pytest.raises(SystemExit, match="another run writes sft in "):
            call(sft, folder, TRAINING)
        first.kill()
        first.wait()
        call(sft, folder, TRAINING)


@pytest.mark.parametrize("module, name, words", [
    (compare, "comparisons", "--prompts 5"), (evaluation, "results", "--prompts 5"),
    (sft, "base", "--stage pretrain --documents 50 --steps 1"), (ppo, "ppo_ptx", "--ptx 1")])
def test_every_stage_locks_what_it_writes(folder, monkeypatch, module, name, words):
    for path in ("reward.pt", "comparisons.jsonl"):
        (folder / path).touch()
    monkeypatch.setattr(ppo, "load_reward", lambda *_: torch.nn.Linear(1, 1))
    with open(folder / f".{name}.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match=f"^error: another run writes {name} in {folder}; .*$"):
            call(module, folder, words)


def test_a_lock_is_of_one_name_in_one_folder(tmp_path, monkeypatch):
    """PPO and PPO-ptx write beside each other; a second lock of the same name is refused."""
    held = []
    monkeypatch.setattr(flags, "locks", held)
    for out, name in (("a", "ppo"), ("a", "ppo_ptx"), ("b", "ppo")):
        lock(tmp_path / out, name)
    with pytest.raises(SystemExit, match="another run writes ppo in "):
        lock(tmp_path / "a", "ppo")
    for file in held:
        file.close()
    lock(tmp_path / "a", "ppo")
    held[-1].close()


# --- consoles and pipes ---------------------------------------------------------------------------


@pytest.fixture
def evaluated(folder):
    """What eval.py left, with answers that few consoles can print."""
    results = dict(sft=dict(right=0.5), rm={}, seconds={}, intervals={})
    (folder / "results.json").write_text(json.dumps(results))
    answers = [dict(model="sft", prompt="Who?", answer=f"{odd}.", ended=True)
               for odd in ("half a letter \ufffd", "\u4e2d", "\U0001f642", "Ä")]
    (folder / "answers.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    return folder


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_a_print_that_is_not_utf8_ends_in_no_traceback(evaluated, encoding):
    done = python(f"-m tools.report --out {evaluated}", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    shown = done.stdout.decode(encoding)
    assert "half a letter" in shown and ("\u4e2d" in shown) == (encoding == "utf-8")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_chat_in_a_console_that_is_not_utf8_ends_in_no_traceback(folder, encoding):
    """The question is not, nor are the answers: of a random model they are any bytes."""
    done = python(f"chat.py {folder / 'sft.pt'} --temperature 5", PYTHONIOENCODING=encoding,
                  stdin="Übung \u4e2d?\n" * 5 + "\n")
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert len(done.stdout.split(b"> ")) == 7                         # five answers, and the end


def test_head_sees_the_first_line_of_the_labelers_and_nobody_complains():
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m data.world.labelers | head -1; "
                                         "exit ${PIPESTATUS[0]}"], cwd=ROOT, env=BUFFERED,
                          capture_output=True)
    assert done.stderr == b"" and done.returncode in (0, 141) and done.stdout.count(b"\n") == 1


@pytest.mark.parametrize("command", [
    "-m data.world.labelers", "-m data.world.text", "-m tools.report --out {}",
    "chat.py {}/sft.pt --prompt Who?",
    "compare.py --out {} --prompts 5 --heldout-prompts 5 --max-new-tokens 4"])
def test_a_broken_pipe_says_nothing_of_room_on_the_disk(evaluated, command):
    """Nobody reads: the reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *command.format(evaluated).split()], cwd=ROOT,
                          env=BUFFERED, stdin=subprocess.DEVNULL, stdout=writing,
                          stderr=subprocess.PIPE)
    os.close(writing)
    said = "\n".join(line for line in done.stderr.decode().splitlines() if "it/s]" not in line)
    assert done.returncode == 141 and said.strip() == "", said


# --- Muon -----------------------------------------------------------------------------------------


def test_orthogonalise_keeps_the_singular_vectors_and_brings_the_values_near_one():
    torch.manual_seed(0)
    for shape in [(8, 8), (24, 8), (8, 24)]:
        g = torch.randn(shape)
        u, _, vt = torch.linalg.svd(g, full_matrices=False)
        values = u.T @ orthogonalise(g) @ vt.T
        assert (values - values.diag().diag()).abs().max() < 1e-4
        assert values.diag().min() > 0.6 and values.diag().max() < 1.25


def test_matrices_turned_together_are_those_turned_one_at_a_time():
    """Of both forms, and of very different sizes: none may lean on its neighbours."""
    torch.manual_seed(0)
    for shape in [(24, 8), (8, 24), (8, 8)]:
        stack = torch.randn(5, *shape) * torch.tensor([1e-4, 1, 1, 30, 1e3]).view(5, 1, 1)
        together = orthogonalise(stack)
        assert together.shape == stack.shape
        for one, turned in zip(stack, together):
            torch.testing.assert_close(turned, orthogonalise(one), atol=1e-5, rtol=0)
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
