"""What the course promises, checked at length; tests/test_course.py checks it in seconds.

    python -m course.check holes                fill the holes one by one: what passes newly
    python -m course.check mistakes             known mistakes at five seeds, the solved ones
    python -m course.check bugs                 does a test of the student's copy show a bug?
    python -m course.check symptoms --runs out,out-1,out-2     figures with and without a bug
"""

import dataclasses
import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch

from course.bugs import BUGS, copy_program, put_in
from course.grade import judge, known, solved
from course.handout import hand_out
from course.holes import HOLES, RECIPE, ROOT
from course.surgery import empty
from course.words import name_words
from tools.flags import check, read_flags, run
from tools.results import read_lines, read_results


@dataclass(frozen=True)
class Config:
    what: str = ""                 # holes, mistakes, bugs or symptoms; may stand without its flag
    seeds: int = 5                 # of inputs, for mistakes
    runs: str = "out"              # folders of finished runs, for symptoms
    only: str = ""                 # numbers of bugs, apart by commas; all
    tests: str = "tests"           # files of tests, apart by commas, for holes and bugs


def run_python(arguments, folder):
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | dict(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1"))


# --- holes and mistakes ---------------------------------------------------------------------------


def run_tests(folder, tests):
    """-> {test: passed, failed, skipped or error}"""
    done = run_python(["-m", "pytest", "-v", "-p", "no:cacheprovider", *tests.split(",")], folder)
    found = re.findall(r"^(tests/\S+(?: .*?)?) (PASSED|FAILED|SKIPPED|ERROR)\b", done.stdout, re.M)
    errors = re.findall(r"^ERROR (tests/\S+)", done.stdout, re.M)
    return dict(found) | {name: "ERROR" for name in errors}


def check_holes(config):
    """Filled from the first to the last; no test that passed is lost, none fails."""
    with tempfile.TemporaryDirectory() as place:
        folder, before = Path(place) / "student", set()
        hand_out(folder)
        for n in range(len(RECIPE) + 1):
            for path in {hole.file for hole in RECIPE}:
                text = (ROOT / path).read_text(encoding="utf-8")
                for hole in RECIPE[n:]:
                    text = empty(text, hole.name) if hole.file == path else text
                (folder / path).write_text(text, encoding="utf-8")
            found = run_tests(folder, config.tests)
            passed = {name for name, state in found.items() if state == "PASSED"}
            bad = [name for name, state in found.items() if state in ("FAILED", "ERROR")]
            print(f"{RECIPE[n - 1].name if n else 'all empty':18} {len(passed):4} pass, "
                  f"{len(passed - before):4} newly, {len(before - passed)} lost, {len(bad)} fail "
                  f"{' '.join(bad)}", flush=True)
            before = passed


def check_mistakes(config):
    torch.set_num_threads(1)
    wrong = n = 0
    for seed in range(config.seeds):
        for hole in HOLES:
            assert judge(hole, solved(hole, seed), seed) == (1.0, "right"), hole
            for mistake, returned in known(hole, seed).items():
                share, says = judge(hole, returned, seed)
                n += 1
                if share == 1 or not says.startswith(mistake.says):
                    wrong += 1
                    print(f"seed {seed}, {hole.name}: {mistake.says!r} is told {says!r}")
    print(f"{n} mistakes at {config.seeds} seeds, {wrong} unseen or called otherwise")


# --- bugs -----------------------------------------------------------------------------------------


def choose(config):
    numbers = config.only.split(",") if config.only else range(1, len(BUGS) + 1)
    return [(int(n), BUGS[int(n) - 1]) for n in numbers]


def show_tests(item, config):
    """Prints the tests of the student's copy, solved, that fail with a bug."""
    n, bug = item
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "student"
        hand_out(folder)
        for hole in RECIPE:
            shutil.copy(ROOT / hole.file, folder / hole.file)
        (folder / bug.file).write_text(put_in(bug), encoding="utf-8")
        bad = [name for name, state in run_tests(folder, config.tests).items()
               if state in ("FAILED", "ERROR")]
    print(f"bug {n} in {bug.file}: {len(bad)} tests show it", *bad, sep="\n    ", flush=True)


# a short run: what it needs of a finished one, and its commands
ASK, PPO = "eval.py --prompts 60 --probes 2", "ppo.py --episodes 48 --minibatch 24 --iterations 8"
PROBES = {
    "sft": (["base.pt"], ["sft.py --demonstrations 1500 --epochs 1 --documents 500", ASK]),
    "answer": (["base.pt", "sft.pt"], [ASK]),
    "reward": (["sft.pt", "comparisons.jsonl"], ["reward.py"]),
    "shift": (["sft.pt", "comparisons.jsonl"], ["reward.py", PPO]),
    "dpo": (["sft.pt", "comparisons.jsonl"], ["dpo.py"]),
    "ppo": (["sft.pt", "reward.pt"], [PPO]),
    "ptx": (["sft.pt", "reward.pt"], [f"{PPO} --iterations 16 --ptx 1 --documents 500"])}
SHORT = 300                        # rankings of the finished run that reward.py and dpo.py see


def read_figure(out, name):
    """A figure of a run: `ppo kl` of the closing line, of the last step or of the evaluation;
    `ppo score 0` of the first step, `reward loss 100` a mean over steps from the 100th on."""
    stage, key, *first = name.split()
    log = read_lines(out / "metrics" / f"{stage}.jsonl")
    if first:
        first = int(first[0])
        return statistics.mean(line[key] for line in (log[first:-1] if first else log[:1]))
    found = [line[key] for line in log if key in line]
    return found[-1] if found else read_results(out)[stage][key]


@functools.cache
def probe(run, name, bug=None):
    """-> the figures of a short run {name: value}, with a bug or without one, and its processor
    time in seconds"""
    began = sum(os.times()[2:4])
    needed, commands = PROBES[name]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        program = copy_program(Path(place) / "program", *((bug.file, put_in(bug)) if bug else ()))
        out.mkdir()
        for file in needed:
            shutil.copy(Path(run) / file, out)
        path = out / "comparisons.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(lines[:SHORT] + lines[-300:]), encoding="utf-8")
        for command in commands:
            done = run_python([*command.split(), "--out", str(out)], program)
            check(done.returncode == 0, f"{command}: {done.stderr[-2000:]}")
        figures = {figure: read_figure(out, figure)
                   for one in BUGS if one.probe == name for figure in one.figures}
        return figures | dict(seconds=sum(os.times()[2:4]) - began)


def show_symptoms(item, config):
    n, bug = item
    runs = config.runs.split(",")
    right, wrong = ([probe(run, bug.probe, which) for run in runs] for which in (None, bug))
    for figure in [*bug.figures, "seconds"]:
        cells = [[found[figure] for found in some] for some in (right, wrong)]
        print(f"{n:2} {bug.file:20} {figure:22} "
              + " | ".join(" ".join(f"{x:8.3f}" for x in row) for row in cells), flush=True)


def main():
    name_words("what")
    config = read_flags(__doc__, Config)
    check(config.what in ("holes", "mistakes", "bugs", "symptoms"),
          "python -m course.check holes, mistakes, bugs or symptoms")
    if config.what in ("holes", "mistakes"):
        return dict(holes=check_holes, mistakes=check_mistakes)[config.what](config)
    if config.what == "symptoms":
        print("bug file                 figure                 without it, run by run | with it")
    show = functools.partial(dict(bugs=show_tests, symptoms=show_symptoms)[config.what],
                             config=config)
    for item in choose(config):
        show(item)


if __name__ == "__main__":
    run(main)
