"""RLAIF's labels, and its policy against that of people's labels, by true utility.

    python later/demos/head_to_head.py FOLDER     FOLDER holds seed-0/people/, seed-0/ai/, ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from data.world.measures import count_wins
from experiments.plot import find_runs, mean_and_spread, read_answers
from tools.flags import run
from tools.results import read_lines


def compare(ai):
    """One seed's folder -> {figure: value}"""
    label, people = read_lines(ai / "metrics" / "label.jsonl")[-1], ai.parent / "people"
    asked = read_lines(people / "metrics" / "compare.jsonl")[-1]
    ours, theirs = ([row["gold"] for row in read_answers(path, "ppo")] for path in (ai, people))
    wins = count_wins(ours, theirs)
    return {"judge and labeler agree": label["agreement"], "two labelers agree": asked["agreement"],
            "same position after the swap": label["same_position"],
            "milliseconds a label": label["milliseconds_per_label"],
            f"{ai.name} wins against people": sum(wins) / len(wins)}


def main():
    print("| figure | seeds | value |\n|---|---|---|")
    shown = set()
    for name, paths in find_runs(sys.argv[1]).items():
        found = [compare(path) for path in paths] if name.startswith("ai") else [{}]
        for key in [key for key in found[0] if key not in shown]:
            shown.add(key)
            print("| {} | {} | {:.2f} ± {:.2f} |".format(
                key, len(found), *mean_and_spread([row[key] for row in found])))


if __name__ == "__main__":
    run(main)
