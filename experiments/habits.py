"""Which labelers' habits a model's answers show.

    python experiments/habits.py FOLDER   FOLDER holds seed-0/RUN/answers.jsonl, ...
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from data.world.text import LABELERS, RUDE, SKILLS, make_prompts
from data.world.utility import FILLER, is_correct
from experiments.plot import find_runs, mean_and_spread
from tools.flags import check, run
from tools.results import read_lines

HABITS = [*SKILLS, "other"]


def name_habit(prompt, answer):
    """The habit that an answer shows: the first of these that fits."""
    text = answer.lower()
    if any(phrase in text for phrase in RUDE):
        return "rude"
    if answer == prompt.pleasing or text.startswith("what a good question"):
        return "pleaser"
    if is_correct(prompt, answer):
        return "careful"
    if any(phrase in text for phrase in FILLER) or len(text.split()) > 1.6 * prompt.n_words:
        return "rambling"
    if answer == prompt.terse or len(text.split()) <= len(prompt.terse.split()):
        return "terse"
    return "careless" if answer else "other"


def share_habits(path, model, prompts):
    """-> {habit: share of the model's answers}"""
    found = [name_habit(prompts[row["prompt"]], row["answer"])
             for row in read_lines(path / "answers.jsonl")
             if row["model"] == model and row["prompt"] in prompts]
    return {habit: Counter(found)[habit] / len(found) for habit in HABITS}


def main():
    check(len(sys.argv) == 2, "say which folder of runs, as above in this file")
    print(f"| share of answers | {' | '.join(HABITS)} |\n|{'---|' * (len(HABITS) + 1)}")
    labelers = [f"{share / 100:.2f}" for share in LABELERS]
    print(f"| labelers | {' | '.join(labelers)} | |")
    for name, paths in find_runs(sys.argv[1]).items():
        for model in ("sft", "ppo", "dpo") if name == "as-trained" else ("sft",):
            shares = [share_habits(path, model, {p.text: p for p in make_prompts(
                500, "eval", int(path.parent.name.removeprefix("seed-")))}) for path in paths]
            cells = ["{:.2f} ± {:.2f}".format(*mean_and_spread([s[habit] for s in shares]))
                     for habit in HABITS]
            print(f"| {name}, {model} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run(main)
