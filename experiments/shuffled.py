"""Every pair of a ranking as a comparison of its own, against the paper's advice (section 3.5).

    python -m experiments.shuffled out/comparisons.jsonl out/pairs.jsonl
"""

import itertools
import json
import sys


def split_into_pairs(record):
    """A ranking of K answers -> C(K,2) rankings of two. Held-out records stay whole."""
    if record["split"] == "valid":
        return [record]
    pairs = []
    for better, worse in itertools.combinations(record["ranking"], 2):
        responses = [record["responses"][better], record["responses"][worse]]
        ids = [record["ids"][better], record["ids"][worse]]
        pairs.append(record | dict(responses=responses, ids=ids, ranking=[0, 1]))
    return pairs


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as file:
        for line in lines:
            for pair in split_into_pairs(json.loads(line)):
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
