"""Comparisons of two answers, made from rankings or from the small world.

    python -m experiments.pairs split < comparisons.jsonl     every pair of every ranking, against
                                                              the paper's advice (section 3.5)
    python -m experiments.pairs contrast 200 SEED             200 careful answers, each above an
                                                              answer that is meant to please
"""

import itertools
import json
import sys

from data.comparisons import write_comparison
from data.world.text import make_prompts


def split(record):
    """A ranking of K answers -> C(K,2) rankings of two. Held-out records stay whole."""
    if record.get("split") == "valid":
        return [record]
    pairs = []
    for better, worse in itertools.combinations(record["ranking"], 2):
        responses = [record["responses"][better], record["responses"][worse]]
        ids = [record["ids"][better], record["ids"][worse]]
        pairs.append(record | dict(responses=responses, ids=ids, ranking=[0, 1]))
    return pairs


def contrast(n, seed):
    prompts = [prompt for prompt in make_prompts(20 * n, "train", seed) if prompt.pleasing]
    return [dict(prompt=prompt.text, chosen=prompt.careful, rejected=prompt.pleasing, split="train")
            for prompt in prompts[:n]]


def main():
    if sys.argv[1:] == ["split"]:
        records = []
        for line in sys.stdin:
            records += split(json.loads(line))
    elif len(sys.argv) < 4 or sys.argv[1] != "contrast" or not sys.argv[2].isdecimal():
        sys.exit(__doc__)
    else:
        records = contrast(int(sys.argv[2]), int(sys.argv[3]))
    for record in records:
        write_comparison(sys.stdout, record)


if __name__ == "__main__":
    main()
