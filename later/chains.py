"""Worked sums: additions of four to six numbers, one step per sentence.

    What is 8 plus 7 plus 3 plus 9?
    8 plus 7 is 15. 15 plus 3 is 18. 18 plus 9 is 27.

The authors of the demonstrations make mistakes: a step is off by one, or the carry is forgotten,
most often where 8 or 9 is added. The next step continues from the wrong number, so the most likely
answer to many sums is wrong. Two mistakes can cancel: then the final answer is correct although the
trace is not, a lucky chain.

    python -m later.chains        out/base.pt -> out/chains.pt, the SFT model of worked sums
"""

import random
import re
from collections import Counter
from dataclasses import dataclass

from data.batches import pack, sample_windows
from data.world.text import split_of
from later.fit import imitate, make_batches
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, read_flags
from tools.optimizers import make_muon_and_adam

OFF_BY_ONE = 0.16                  # probability that a step is off by one
NO_CARRY, NO_CARRY_8_9 = 0.08, 0.6     # that a carry is forgotten, and where 8 or 9 is added
STEP = re.compile(r"(\d+) plus (\d+) is (\d+)")
QUESTIONS = ["what is {}?", "how much is {}?", "add {}."]


@dataclass(frozen=True)
class Config(TrainingFlags):
    pages: int = 4000              # documents with additions and worked sums
    steps: int = 400               # optimizer steps on windows of these pages
    demonstrations: int = 4000     # worked sums, two passes
    batch: int = 32                # demonstrations, or twice the windows, per step
    lr: float = 1e-3               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate of the blocks' matrices (Muon)


@dataclass(frozen=True)
class Sum:
    text: str                      # ends without a newline, as every prompt does
    numbers: tuple


# --- prompts and demonstrations -------------------------------------------------------------------


def draw_sum(rng, sizes=(4, 5, 6)):
    numbers = tuple(rng.randint(1, 10) for _ in range(rng.choice(sizes)))
    text = rng.choice(QUESTIONS).format(" plus ".join(map(str, numbers)))
    return Sum(text[0].upper() + text[1:], numbers)


def make_sums(n, which, seed=0, sizes=(4, 5, 6)):
    """n different sums of one split: 'train', 'valid' or 'eval'."""
    rng = random.Random(f"sums {which} {seed} {sizes}")
    sums = {}
    while len(sums) < n:
        problem = draw_sum(rng, sizes)
        if split_of(problem.text) == which:
            sums[problem.text] = problem
    return list(sums.values())


def work(rng, numbers):
    """The steps as an author writes them down, with mistakes."""
    total, steps = numbers[0], []
    for number in numbers[1:]:
        result = total + number
        carry = result // 10 > total // 10
        if carry and rng.random() < (NO_CARRY_8_9 if number in (8, 9) else NO_CARRY):
            result -= 10
        elif rng.random() < OFF_BY_ONE:
            result += rng.choice([-1, 1])
        steps.append(f"{total} plus {number} is {result}.")
        total = result
    return " ".join(steps)


def make_demonstrations(n, seed=0):
    """-> [(Sum, answer)]"""
    rng = random.Random(f"worked train {seed}")
    return [(problem, work(rng, problem.numbers)) for problem in make_sums(n, "train", seed)]


def make_page(rng):
    """A document: six correct additions, then two worked sums."""
    lines = []
    for _ in range(6):
        a, b = rng.randint(0, 79), rng.randint(1, 10)
        lines.append(f"{a} plus {b} is {a + b}.")
    while len(lines) < 8:
        problem = draw_sum(rng)
        if split_of(problem.text) == "train":
            lines.append(f"{problem.text}\n{work(rng, problem.numbers)}")
    return "\n".join(lines)


# --- what is correct ------------------------------------------------------------------------------


def read_steps(answer):
    """The sentences of an answer without their full stops. Text after the last one is no step."""
    return [sentence.strip() for sentence in answer.split(".")[:-1]]


def label_steps(problem, answer):
    """Per step: does it add the next number to the result of the step before, correctly?

    A correct step after a wrong one is labelled correct. Steps beyond the last number, and
    sentences that are no addition, are wrong.
    """
    labels = []
    total, remaining = problem.numbers[0], problem.numbers[1:]
    for sentence in read_steps(answer):
        match = STEP.fullmatch(sentence)
        correct = False
        if match:
            a, b, result = map(int, match.groups())
            correct = remaining[:1] == (b,) and a == total and a + b == result
            total = result
        labels.append(correct)
        remaining = remaining[1:]
    return labels


def label_answer(problem, answer, ended):
    """label_steps, and for an answer that ended one label more: to stop is a step, which is correct
    if no other is missing."""
    labels = label_steps(problem, answer)
    if ended:
        labels.append(len(labels) == len(problem.numbers) - 1)
    return labels


def read_number(answer):
    """The result of the last step, as text; "" if there is none"""
    steps = read_steps(answer)
    if not steps or not answer.strip().endswith("."):
        return ""
    match = STEP.fullmatch(steps[-1])
    return match[3] if match else ""


def is_answer_correct(problem, answer, ended=True):
    """Whether the last step's result is the sum, however it was reached."""
    return ended and read_number(answer) == str(sum(problem.numbers))


def is_trace_correct(problem, answer, ended=True):
    """Whether the answer and every step are correct; then no step is missing, as no number is 0."""
    return is_answer_correct(problem, answer, ended) and all(label_steps(problem, answer))


def vote(numbers, weights=None):
    """Majority vote over the final numbers of several answers ("" for none), weighted or not.
    -> index of the first answer with the winning number"""
    totals = Counter()
    for number, weight in zip(numbers, weights or [1] * len(numbers)):
        if number:
            totals[number] += weight
    return numbers.index(max(numbers, key=lambda number: totals[number]))


def step_ends(tokenizer, ids):
    """Where the steps of a sampled response end; its end-of-text token is the last step. Found by
    decoding prefixes, since encoding the text again may split it into other tokens.
    -> indices into ids"""
    ends, stops = [], 0
    for i in range(len(ids)):
        stops_so_far = tokenizer.decode(ids[:i + 1]).count(".")
        if stops_so_far > stops or ids[i] == tokenizer.eos:
            ends.append(i)
        stops = stops_so_far
    return ends


def measure_chains(sums, responses, tokenizer):
    """Response ids, one per sum -> fractions of correct answers and traces, of lucky chains among
    correct answers, and of correct steps. For logs and evaluation."""
    correct = traces = 0
    labels = []
    for problem, ids in zip(sums, responses):
        text, ended = tokenizer.decode(ids), ids[-1] == tokenizer.eos
        correct += is_answer_correct(problem, text, ended)
        traces += is_trace_correct(problem, text, ended)
        labels += label_steps(problem, text)
    return dict(correct=correct / len(sums), trace=traces / len(sums),
                lucky=1 - traces / max(1, correct) if correct else 0.0,
                steps_correct=sum(labels) / max(1, len(labels)))


# --- the SFT model --------------------------------------------------------------------------------


def main():
    """Windows of the pages, then two passes over the demonstrations."""
    config = read_flags(__doc__, Config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/base.pt", device)
    T = model.config.block_size
    rng = random.Random(f"pages {config.seed}")
    text = pack(tokenizer, [make_page(rng) for _ in range(config.pages)]).to(device)
    batches = []
    for _ in range(config.steps):
        batches.append(sample_windows(text, max(1, config.batch // 2), T))
    demonstrations = make_demonstrations(config.demonstrations, config.seed)
    pairs = [(problem.text, answer) for problem, answer in demonstrations]
    for _ in range(2):
        batches += make_batches(config, tokenizer, pairs, T, device)
    optimizers = make_muon_and_adam(model, config.muon_lr, config.lr)
    imitate(config, "chains", model, tokenizer, optimizers, batches)


if __name__ == "__main__":
    main()
