"""Rankings taken apart: every pair a record of its own, against the paper's advice (section 3.5).

    python experiments/shuffled.py out/comparisons.jsonl out/pairs.jsonl
"""

import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools.flags import check, run, write_whole
from tools.results import read_lines


def take_apart(record):
    """A ranking of K answers -> C(K,2) rankings of two; what is held out stays whole."""
    if record["split"] == "valid":
        return [record]
    return [record | dict(responses=[record["responses"][i] for i in pair], ranking=[0, 1],
                          ids=[record["ids"][i] for i in pair])
            for pair in itertools.combinations(record["ranking"], 2)]


def main():
    check(len(sys.argv) == 3, "say what to read and what to write, as above in this file")
    with write_whole(sys.argv[2]) as file:
        for record in read_lines(sys.argv[1]):
            for part in take_apart(record):
                file.write(json.dumps(part, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(main)
