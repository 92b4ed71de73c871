"""Simulated labelers: twenty who rank the training comparisons and twenty held out for evaluation.

A labeler judges an answer by

    sum of taste[term] * utility[term]  +  biases  +  noise

The terms are those of the true utility. Each labeler weights them differently. All of a group share
the same biases, for example for longer answers (flags of compare.py change those of the training
group), and the noise is drawn anew for every answer. It follows a
Gumbel distribution, so a labeler prefers a to b with probability sigmoid((a - b) / noise), where a
and b are the sums without noise: the Bradley-Terry model that eq. 1 fits. For the whole pool it
holds only approximately, because tastes and noise differ.

The noise is tuned so that two labelers agree on about as many pairs as in the paper: 72.6 % in
training, 77.3 % held out (InstructGPT, section 3.4).

    python -m data.world.labelers    print three prompts with answers, utilities and rankings, and
                                     how much easier comparing is than writing
"""

import math
import random
from dataclasses import dataclass

from data.world.text import demonstrate, make_demonstrations, make_prompts
from data.world.utility import TERMS, breakdown

# Scale of the logistic noise on the difference between two answers, in units of utility. At 0.92
# the middle labeler prefers the better answer with probability 0.63 at a difference of 0.5 and 0.90
# at 2; the others have half to one and a half times as much noise.
NOISE = {"train": 0.8, "held-out": 0.55}


@dataclass(frozen=True)
class Biases:
    """What all labelers add to the true utility, in its units."""
    length: float = 0.15         # times log(1 + words)
    sycophancy: float = 0.3      # if the answer affirms a false premise
    confidence: float = 0.0      # if it makes a claim about a thing that does not exist
    doubt: float = 0.0           # if it says "do not know", whether or not the answer is known

    def add_up(self, answer, terms):
        return (self.length * math.log(1 + len(answer.split()))
                + self.sycophancy * (terms["affirms"] < 0)
                + self.confidence * (terms["invents"] < 0)
                + self.doubt * ("do not know" in answer.lower()))


@dataclass(frozen=True)
class Labeler:
    name: str
    taste: dict                  # term -> weight
    noise: float
    biases: Biases

    def perceive(self, prompt, answer, ended, rng):
        """The utility of an answer as this labeler sees it. The noise differs between calls."""
        terms = breakdown(prompt, answer, ended)
        weighted = sum(self.taste[term] * terms[term] for term in TERMS)
        gumbel = -math.log(rng.expovariate(1))
        return weighted + self.biases.add_up(answer, terms) + self.noise * gumbel

    def rank(self, prompt, answers, rng):
        """[(answer, ended)] -> indices, best first"""
        perceived = [self.perceive(prompt, answer, ended, rng) for answer, ended in answers]
        return sorted(range(len(answers)), key=lambda i: -perceived[i])


def make_labelers(group, biases=Biases(), n=20):
    """n labelers of 'train' or 'held-out', with different tastes and amounts of noise."""
    rng = random.Random(f"labelers {group}")
    labelers = []
    for i in range(n):
        taste = {term: rng.uniform(0.5, 1.5) for term in TERMS}
        noise = NOISE[group] * rng.uniform(0.5, 1.5)
        labelers.append(Labeler(f"{group} {i}", taste, noise, biases))
    return labelers


def write_and_compare(rng, n=4000):
    """-> the share of demonstrations that are the careful answer; how often a labeler prefers the
    careful answer to a demonstration that is not"""
    labelers = make_labelers("train")
    written = picked = 0
    for prompt, demonstration in make_demonstrations(n):
        if demonstration == prompt.careful:
            written += 1
        else:
            pair = [(prompt.careful, True), (demonstration, True)]
            picked += rng.choice(labelers).rank(prompt, pair, rng)[0] == 0
    return written / n, picked / (n - written)


def main():
    rng = random.Random(0)
    for prompt in make_prompts(3, "eval"):
        print(f"\n{prompt.text}")
        answers = list(dict.fromkeys(demonstrate(rng, prompt) for _ in range(8)))[:5]
        for i, answer in enumerate(answers):
            terms = breakdown(prompt, answer)
            shown = {term: round(value, 2) for term, value in terms.items() if value}
            print(f"  {i}  {sum(terms.values()):5.2f}  {answer}\n            {shown}")
        for labeler in make_labelers("train")[:3] + make_labelers("held-out")[:2]:
            ranking = labeler.rank(prompt, [(answer, True) for answer in answers], rng)
            print(f"  {labeler.name:12} ranks {' > '.join(map(str, ranking))}")
    written, picked = write_and_compare(rng)
    print(f"\nLabelers write the careful answer in {written:.0%} of demonstrations. Shown both, "
          f"they prefer it to another one in {picked:.0%}.")


if __name__ == "__main__":
    main()
