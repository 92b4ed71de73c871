"""How many noisy votes until Bradley-Terry scores can be trusted?

    python experiments/clicks.py    four answers of known quality, votes of labelers on random
                                    pairs, scores fitted to them by eq. 1; no network is trained
"""

import random
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait
import torch

from data.world.facts import sentences
from data.world.labelers import make_labelers
from data.world.text import make_prompts
from data.world.utility import utility
from experiments.plot import mean_and_spread
from reward import preference_loss
from tools.flags import run


def fit_bradley_terry(votes, n):
    """[(winner, loser)] -> n scores with mean 0, by eq. 1 and a weak pull towards 0."""
    scores = torch.zeros(n, requires_grad=True)
    winners, losers = torch.tensor(votes).T
    optimizer = torch.optim.LBFGS([scores], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = preference_loss(scores[winners], scores[losers]) + 0.01 * (scores ** 2).sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    return (scores - scores.mean()).tolist()


def main(seeds=100):
    """Four answers of known quality, votes of random labelers on random pairs."""
    prompt, labelers = make_prompts(1, "eval")[0], make_labelers("train")
    first, *rest = sentences(prompt.careful)
    answers = [prompt.careful, f"{first}{rest[0]}", f"What a good question. {first}", prompt.wrong]
    truth = [utility(prompt, answer) for answer in answers]
    for answer, value in zip(answers, truth):
        print(f"{value:6.2f}  {answer}")
    print("| votes | true order | best first | scores, spread over seeds |\n|---|---|---|---|")
    for n in (1, 3, 5, 10, 20, 50, 100, 200, 500):
        found = []
        for seed in range(seeds):
            rng, votes = random.Random(seed), []
            for _ in range(n):
                pair = rng.sample(range(len(answers)), 2)
                order = rng.choice(labelers).rank(prompt, [(answers[i], True) for i in pair], rng)
                votes.append((pair[order[0]], pair[order[1]]))
            found.append(fit_bradley_terry(votes, len(answers)))
        ordered = statistics.mean(s == sorted(s, reverse=True) for s in found)
        best = statistics.mean(max(s) == s[0] for s in found)
        spread = ", ".join("{:.2f} ± {:.2f}".format(*mean_and_spread(s)) for s in zip(*found))
        print(f"| {n} | {ordered:.0%} | {best:.0%} | {spread} |")


if __name__ == "__main__":
    run(main)
