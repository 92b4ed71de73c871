"""What is written, what to do next, and the tests of what is written.

    python -m course.start             after every function
    python -m course.start --hint      with a hint for the next one

It runs the tests of the scripts that you have begun, stops at the first one that fails, and prints
its docstring, which often works an example by hand.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

from course.holes import HOLES, ROOT, is_empty

TESTS = {"pretrain.py": ["test_sft.py"], "ppo.py": ["test_ppo.py", "test_gibbs.py"],
         "dpo.py": ["test_dpo.py", "test_gibbs.py", "test_eight_more.py"]}


def read_progress():
    """-> (hole, whether it is written, its line number) of every function of the assignment"""
    progress = []
    for hole in HOLES:
        path = ROOT / hole.file
        if path.is_file():
            source = path.read_text(encoding="utf-8-sig")
            function = find_function(source, hole.name)
            progress.append((hole, not is_empty(hole, source), function.lineno))
    return progress


def find_function(source, name):
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    sys.exit(f"error: there is no function {name} any more")


def tests_of(files):
    names = []
    for file in files:
        stem = file.removesuffix(".py").replace("/", "_")
        names += TESTS.get(file, [f"test_{stem}.py"])
    return [f"tests/{name}" for name in dict.fromkeys(names)]


def run_tests(paths):
    """-> name of the first test that fails or "", pytest's output"""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    process = subprocess.run(command + paths, cwd=ROOT, capture_output=True, text=True)
    output = process.stdout
    if not output:
        sys.exit(f"error: pytest does not run; is the environment active?\n{process.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
    return failed[1] if failed else "", output


def explain(test, output):
    """Prints the docstring of a failed test, and what was wrong."""
    path, _, name = test.partition("::")
    print(f"\nThis test fails: {test}\n")
    if name:
        node = find_function(Path(ROOT / path).read_text("utf-8"), name.split("[")[0])
        print(ast.get_docstring(node) or name.split("[")[0].replace("_", " "))
    print("\n".join(line for line in output.splitlines() if re.match(r"E  |\S+\.py:\d+: ", line)))


def main():
    try:
        progress = read_progress()
    except SyntaxError as error:
        sys.exit(f"error: line {error.lineno} is not Python: {error.msg}: {error.text}")
    for hole, written, _ in progress:
        print(f"{'written ' if written else 'to write'}  {hole.points:2} points  {hole.file:20} "
              f"{hole.name}")
    begun = dict.fromkeys(hole.file for hole, written, _ in progress if written)
    if begun:
        print("\nrunning the tests of", *begun, flush=True)
        failed, output = run_tests(tests_of(begun))
        if failed:
            return explain(failed, output)
        print(output.splitlines()[-1])
    for hole, written, line_number in progress:
        if not written:
            print(f"\nnext: {hole.file}:{line_number} {hole.name}")
            return print(f"hint: {hole.hint}" if "--hint" in sys.argv else "--hint prints a hint")
    print("\nEverything is written. Train with it: TINY=1 bash train_all.sh")


if __name__ == "__main__":
    main()
