"""Sums of four to six numbers, worked one step a sentence: the task of reasoning.py and process.py.

    What is 8 plus 7 plus 3 plus 9?
    8 plus 7 is 15. 15 plus 3 is 18. 18 plus 9 is 27.

Whoever writes them down slips: a step is off by one, or the carry is forgotten, most often where 8
or 9 is added, and the next step goes on from there. So the most frequent answer is often wrong. Two
slips can cancel: then the answer is right and the trace is not, a lucky chain. Which step is right
is known here; training sees it only where a flag says so.

    python -m later.chains        sums, how people work them, and which steps are right
"""

import random
import re
from collections import Counter
from dataclasses import dataclass

from data.world.text import split
from tools.flags import run

SIZES = (4, 5, 6)                  # numbers to add
SLIP, FORGET, HARD = 0.16, 0.08, 0.6   # chance that a step is off by one, that its carry is
                                       # forgotten, and that it is where 8 or 9 is added
STEP = re.compile(r"(\d+) plus (\d+) is (\d+)")
ASKS = ["what is {}?", "how much is {}?", "add {}."]


@dataclass(frozen=True)
class Sum:
    text: str                      # ends without a newline, as every prompt does
    numbers: tuple


# --- prompts and answers --------------------------------------------------------------------------


def draw_sum(rng, sizes=SIZES):
    numbers = tuple(rng.randint(1, 10) for _ in range(rng.choice(sizes)))
    text = rng.choice(ASKS).format(" plus ".join(map(str, numbers)))
    return Sum(text[0].upper() + text[1:], numbers)


def make_sums(n, which, seed=0, sizes=SIZES):
    """n different sums of one split: 'train', 'valid' or 'eval'."""
    rng, found = random.Random(f"sums {which} {seed} {sizes}"), {}
    while len(found) < n:
        one = draw_sum(rng, sizes)
        if split(one.text) == which:
            found.setdefault(one.text, one)
    return list(found.values())


def work(rng, numbers):
    """The steps as somebody writes them down."""
    total, steps = numbers[0], []
    for number in numbers[1:]:
        right = said = total + number
        carry = right // 10 > total // 10
        if carry and rng.random() < (HARD if number in (8, 9) else FORGET):
            said = right - 10
        elif rng.random() < SLIP:
            said = right + rng.choice([-1, 1])
        steps.append(f"{total} plus {number} is {said}.")
        total = said
    return " ".join(steps)


def make_worked(n, seed=0, which="train"):
    """-> [(Sum, answer)], demonstrations by people who slip"""
    rng = random.Random(f"worked {which} {seed}")
    return [(one, work(rng, one.numbers)) for one in make_sums(n, which, seed)]


def make_page(rng):
    """What the base model reads: additions, then sums that somebody has worked."""
    lines = [f"{a} plus {b} is {a + b}." for a, b in
             ((rng.randint(0, 79), rng.randint(1, 10)) for _ in range(6))]
    for _ in range(2):
        one = draw_sum(rng)
        while split(one.text) != "train":
            one = draw_sum(rng)
        lines.append(f"{one.text}\n{work(rng, one.numbers)}")
    return "\n".join(lines)


# --- what is right --------------------------------------------------------------------------------


def read_steps(answer):
    """The sentences of an answer, each ended by its stop; what follows the last stop is none."""
    return [sentence.strip() for sentence in answer.split(".")[:-1]]


def label_steps(one, answer):
    """For each step whether it adds the next number to what the step before said, rightly.

    A step that goes on rightly from a wrong one is right itself; so are not steps beyond the last
    number, or anything that is no addition.
    """
    labels, total, rest = [], one.numbers[0], list(one.numbers[1:])
    for sentence in read_steps(answer):
        match = STEP.fullmatch(sentence)
        a, b, said = map(int, match.groups()) if match else (None, None, total)
        due = bool(rest) and (a, b) == (total, rest[0])
        labels.append(due and a + b == said)
        total, rest = said, rest[1:]
    return labels


def read_number(answer):
    """The number that the last step of an answer says, or "" if there is none"""
    steps = read_steps(answer)
    match = STEP.fullmatch(steps[-1]) if steps and answer.strip().endswith(".") else None
    return match[3] if match else ""


def vote(said, weights=None):
    """Final numbers ("" for none), and how much each voice counts -> the index of the first answer
    with the number that most, or most weight, say"""
    counts = Counter()
    for number, weight in zip(said, weights or [1] * len(said)):
        counts[number] += weight if number else 0
    return said.index(max(said, key=lambda number: counts[number]))


def is_answer_right(one, answer, ended=True):
    """Whether the last step says the sum. How it was found does not matter."""
    return bool(ended) and read_number(answer) == str(sum(one.numbers))


def is_trace_right(one, answer, ended=True):
    """Whether the answer and every step are right; then none is missing, as no number is 0."""
    return is_answer_right(one, answer, ended) and all(label_steps(one, answer))


def label_answer(one, answer, ended):
    """label_steps, and if the answer ended whether no step is missing: to stop is a step, too."""
    labels = label_steps(one, answer)
    return labels + [len(labels) == len(one.numbers) - 1] * bool(ended)


def step_ends(tokenizer, ids):
    """Where the steps of sampled ids end, by decoding their prefixes: to encode the text again may
    cut it elsewhere. The end-of-text token is the last one. -> indices into ids, one a step"""
    stops = [tokenizer.decode(ids[:i]).count(".") for i in range(len(ids) + 1)]
    return [i for i in range(len(ids)) if stops[i + 1] > stops[i] or ids[i] == tokenizer.eos]


def assess_chains(sums, responses, tokenizer):
    """Response ids, one a sum -> shares of right answers, of right traces, and of lucky chains
    among the right answers. For logs and evaluation."""
    read = [(one, tokenizer.decode(ids), ids[-1] == tokenizer.eos)
            for one, ids in zip(sums, responses)]
    right, trace = (sum(is_correct(*answer) for answer in read)
                    for is_correct in (is_answer_right, is_trace_right))
    steps = [label for one, answer, _ in read for label in label_steps(one, answer)]
    return dict(right=right / len(read), trace=trace / len(read),
                lucky=1 - trace / right if right else 0.0,
                steps_right=sum(steps) / max(1, len(steps)))


def main():
    rng = random.Random(0)
    print(f"--- a page that the base model reads ---\n{make_page(rng)}\n")
    for one, answer in make_worked(8):
        marks = "".join("+" if label else "-" for label in label_steps(one, answer))
        lucky = is_answer_right(one, answer) and not is_trace_right(one, answer)
        print(f"{one.text}\n    {answer}\n    {marks} {sum(one.numbers)}{' lucky' * lucky}")


if __name__ == "__main__":
    run(main)
