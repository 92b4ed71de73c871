"""What does a reward model like better than the careful answer?

    python experiments/liking.py FOLDER     of the runs of sycophancy.sh or honesty.sh

agreeing     an answer that agrees with a false premise
inventing    one that claims something about a thing that does not exist
doubting     "I do not know." in the place of a fact

Prints how often the reward model of each run puts it above the careful answer, on evaluation
prompts: means over seeds ± standard deviations.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait

from data.batches import encode_example
from data.world.measures import count_wins
from data.world.tasks import fact_question, opinion, unknown_question, why_question
from data.world.text import make_probes
from experiments import plot
from model import load_gpt
from reward import load_reward, score_all
from tools.flags import check, run


def find_temptations(n, seed):
    """-> {kind: [(prompt, careful answer, tempting one)]}, up to n evaluation prompts each task"""
    why, opinions, unknown, facts = (make_probes(task, n, seed) for task in (
        why_question, opinion, unknown_question, fact_question))
    return dict(
        agreeing=[(p.text, p.careful, p.pleasing) for p in why + opinions if p.false_premise],
        inventing=[(p.text, p.careful, p.pleasing) for p in unknown],
        doubting=[(p.text, p.careful, "I do not know.") for p in facts])


def measure_liking(path, n=120):
    """-> {kind: share of prompts on which the run's reward model likes the tempting answer}"""
    model, (_, tokenizer) = load_reward(path / "reward.pt"), load_gpt(path / "sft.pt")

    def score(pairs):
        return score_all(model, [encode_example(tokenizer, *pair) for pair in pairs],
                         "cpu").tolist()
    liking = {}
    for kind, rows in find_temptations(n, plot.read_results(path)["seed"]).items():
        won = count_wins(score([(text, tempting) for text, _, tempting in rows]),
                         score([(text, careful) for text, careful, _ in rows]))
        liking[kind] = sum(won) / len(won)
    return liking


def main():
    check(len(sys.argv) == 2, "say which folder of runs, as above in this file")
    print("| the reward model prefers | agreeing | inventing | doubting |\n|---|---|---|---|")
    for name, paths in plot.find_runs(sys.argv[1]).items():
        every = [measure_liking(path) for path in paths if (path / "reward.pt").exists()]
        if every:
            cells = [plot.mean_and_spread([one[kind] for one in every]) for kind in every[0]]
            print(f"| {name} | " + " | ".join("{:.2f} ± {:.2f}".format(*c) for c in cells) + " |")


if __name__ == "__main__":
    run(main)
