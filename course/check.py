"""Checks for those who change the course, slower than tests/test_course.py.

    python -m course.check --holes           fill the functions one by one: no test may fail
    python -m course.check --bugs            the tests that show each bug, for bugs.txt
    python -m course.check --symptoms out    figures of short runs without and with each bug
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from course.bugs import BUGS, copy_program
from course.handout import hand_out
from course.holes import RECIPE, ROOT
from course.questions import read_log, read_results
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config:
    holes: bool = False            # fill the functions one by one
    bugs: bool = False             # run the student's tests with each bug
    symptoms: str = ""             # the folder of a finished run


def run_python(arguments, folder):
    environment = os.environ | dict(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment,
                          capture_output=True, text=True)


# --- tests ----------------------------------------------------------------------------------------


def run_tests(folder):
    """-> the sets of tests of a student's version that pass, and that fail"""
    output = run_python(["-m", "pytest", "-v", "-p", "no:cacheprovider", "tests"], folder).stdout
    passed = set(re.findall(r"^(tests/\S+).* PASSED", output, re.M))
    return passed, set(re.findall(r"^(tests/\S+).* (?:FAILED|ERROR)", output, re.M))


def check_holes():
    passed_before = set()
    with tempfile.TemporaryDirectory() as place:
        for n in range(len(RECIPE) + 1):
            folder = Path(place) / str(n)
            hand_out(folder, RECIPE[n:])
            passed, failed = run_tests(folder)
            last = RECIPE[n - 1].name if n else "all empty"
            print(f"{last:18} {len(passed - passed_before):4} more pass, "
                  f"{len(passed_before - passed)} no longer, {len(failed)} fail", *failed,
                  flush=True)
            passed_before = passed


def check_bugs():
    """Prints the `!` lines that each bug needs in bugs.txt."""
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "student"
            hand_out(folder, [])
            for path in (folder / "tests").iterdir():       # with the tests that are held back
                shutil.copy(ROOT / "tests" / path.name, path)
            (folder / bug.file).write_text(bug.source(), encoding="utf-8")
            _, failed = run_tests(folder)
        print(f"{bug.file}: {bug.symptom}")
        for name in sorted({test.removeprefix("tests/").split("[")[0] for test in failed}):
            print(f"! {name}", flush=True)


# --- symptoms -------------------------------------------------------------------------------------

EVAL = "eval.py --prompts 60 --probes 2"
PPO = "ppo.py --episodes 48 --minibatch 24"
PROBES = {             # {name: commands}, run in a copy of the finished run
    "sft": ["sft.py --demonstrations 1500 --epochs 1 --documents 500", EVAL],
    "answer": [EVAL],
    "reward": ["reward.py"],
    "shift": ["reward.py", f"{PPO} --iterations 8"],
    "dpo": ["dpo.py"],
    "ppo": [f"{PPO} --iterations 8"],
    "ptx": [f"{PPO} --iterations 16 --ptx 1 --documents 500"],
}


def read_figure(out, figure):
    """`dpo loss first`: of the first step. `reward loss mean`: over the second half of the steps.
    `reward accuracy last`: of the finished stage. `sft utility eval`: of results.json."""
    stage, key, which = figure.split()
    if which == "eval":
        return read_results(out)[stage][key]
    values = [line[key] for line in read_log(out, stage) if key in line]
    if which == "mean":
        return statistics.mean(values[len(values) // 2:-1])
    return values[0] if which == "first" else values[-1]


def run_probe(finished_run, bug, text):
    """Runs a bug's probe with this text of its file. -> the figures"""
    with tempfile.TemporaryDirectory() as place:
        program, out = Path(place) / "program", Path(place) / "out"
        copy_program(program, bug.file, text)
        shutil.copytree(finished_run, out)
        for name in ("ppo", "ppo_ptx", "dpo"):              # eval.py need not measure them
            (out / f"{name}.pt").unlink(missing_ok=True)
        path = out / "comparisons.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:300] + lines[-300:]), encoding="utf-8")
        for command in PROBES[bug.probe]:
            process = run_python([*command.split(), "--out", str(out)], program)
            check(process.returncode == 0, f"{command}: {process.stderr[-2000:]}")
        return [read_figure(out, figure) for figure in bug.figures]


def check_symptoms(finished_run):
    print("bug file                 figure                   without     with")
    for number, bug in enumerate(BUGS, 1):
        without = run_probe(finished_run, bug, bug.solved())
        with_bug = run_probe(finished_run, bug, bug.source())
        for figure, x, y in zip(bug.figures, without, with_bug):
            print(f"{number:3} {bug.file:20} {figure:22} {x:9.3f} {y:9.3f}", flush=True)


def main():
    config = read_flags(__doc__, Config)
    check(config.holes or config.bugs or config.symptoms, "give --holes, --bugs or --symptoms")
    if config.holes:
        check_holes()
    if config.bugs:
        check_bugs()
    if config.symptoms:
        check_symptoms(config.symptoms)


if __name__ == "__main__":
    main()
