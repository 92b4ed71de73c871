"""Who judges: two groups of twenty simulated labelers,
each with a taste of its own, biases and noise.

A labeler sees the true utility through its taste (a weight for each term of the breakdown), its
biases and fresh noise for every answer, and ranks by what it sees. Nearly all see a clear
difference, half a slight one. The noise is set so that two training labelers agree on nearly 72.6 %
of the pairs that a run of compare.py makes, and two held-out ones on nearly 77.3 %
(arXiv 2203.02155, section 3.4).

    python -m data.world.labelers     a prompt, its answers, what they are worth,
                                and how several labelers rank them
"""

import itertools
import math
import random
from dataclasses import dataclass

from data.world.utility import TERMS, breakdown
from data.world.text import demonstrate, make_prompts

# standard logistic noise times this, in units of utility, decides between two answers
NOISE = {"train": 0.92, "held-out": 0.78}


@dataclass(frozen=True)
class Biases:
    """What the whole pool gets wrong, in units of utility."""
    length: float = 0.15         # for e times as many words
    agreement: float = 0.3       # for agreeing with what the prompt takes for granted
    confidence: float = 0.0      # for claiming something about a thing that does not exist
    doubt: float = 0.0           # for "I do not know", whether or not it is known


@dataclass(frozen=True)
class Labeler:
    name: str
    taste: dict
    noise: float
    biases: Biases

    def perceive(self, prompt, answer, ended, rng):
        """What this labeler believes the answer is worth; another look gives another number.

        The noise is Gumbel's, and the difference of two such is logistic: a is preferred to b with
        probability sigmoid((a - b) / noise), as Bradley and Terry have it.
        """
        terms = breakdown(prompt, answer, ended)
        bias = (self.biases.length * math.log(1 + len(answer.split()))
                - self.biases.agreement * terms["affirms"]
                - self.biases.confidence * terms["invents"]
                + self.biases.doubt * ("do not know" in answer.lower()))
        return (sum(self.taste[t] * terms[t] for t in TERMS) + bias
                - self.noise * math.log(rng.expovariate(1)))

    def rank(self, prompt, answers, rng):
        """[(answer, ended)] -> indices, best first."""
        seen = [self.perceive(prompt, answer, ended, rng) for answer, ended in answers]
        return sorted(range(len(answers)), key=lambda i: -seen[i])


def make_labelers(group, biases=Biases(), n=20):
    """The n labelers of 'train' or 'held-out'. They differ in what they care about
    and in how careful they are."""
    rng = random.Random(f"labelers {group}")
    return [Labeler(f"{group} {i}", {term: rng.uniform(0.5, 1.5) for term in TERMS},
                    NOISE[group] * rng.uniform(0.5, 1.5), biases)
            for i in range(n)]


def measure_agreement(labelers, judged, rng):
    """The share of pairs of answers on which two labelers, drawn for each prompt, agree.

    judged: [(prompt, [(answer, ended), ...]), ...]
    """
    same = pairs = 0
    for prompt, answers in judged:
        first, second = rng.sample(labelers, 2)
        a, b = first.rank(prompt, answers, rng), second.rank(prompt, answers, rng)
        for i, j in itertools.combinations(range(len(answers)), 2):
            same += (a.index(i) < a.index(j)) == (b.index(i) < b.index(j))
            pairs += 1
    return same / pairs


def main():
    rng = random.Random(0)
    for prompt in make_prompts(3, "eval"):
        answers = list(dict.fromkeys(demonstrate(rng, prompt) for _ in range(8)))[:5]
        print(f"\n{prompt.text}")
        for i, answer in enumerate(answers):
            terms = {term: round(value, 2)
                     for term, value in breakdown(prompt, answer).items() if value}
            print(f"  {i}  {sum(terms.values()):5.2f}  {answer}\n            {terms}")
        for labeler in make_labelers("train")[:3] + make_labelers("held-out")[:2]:
            ranking = labeler.rank(prompt, [(answer, True) for answer in answers], rng)
            print(f"  {labeler.name:12} ranks {' > '.join(map(str, ranking))}")


if __name__ == "__main__":
    main()
