"""The judge's labels, and the policies that follow them against the one that follows people's.

    python -m later.demos.head_to_head FOLDER     FOLDER holds seed-0/people/, seed-0/soft/, ...
"""

import sys

from experiments.plot import find_runs, format_cell, mean_and_spread, read_answers, read_lines


def win_rate(folder, other_folder):
    """By true utility of PPO's answers to the same prompts; a tie is half a win."""
    wins = 0
    answers = read_answers(folder, "ppo")
    for a, b in zip(answers, read_answers(other_folder, "ppo")):
        wins += (a["utility"] > b["utility"]) + 0.5 * (a["utility"] == b["utility"])
    return wins / len(answers)


def main():
    print("| labels | agree with labelers | same position after the swap | wins against people |")
    print("|---|---|---|---|")
    for name, folders in find_runs(sys.argv[1]).items():
        if name == "people":
            continue
        reached = [read_lines(folder / "metrics/reward.jsonl")[-1] for folder in folders]
        columns = [[line["agreement"] for line in reached],
                   [line["same_position"] for line in reached],
                   [win_rate(folder, folder.parent / "people") for folder in folders]]
        cells = [format_cell(mean_and_spread(values)) for values in columns]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
