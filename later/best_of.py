"""Best of n answers to worked sums: which choice is correct, and is its trace correct too?

    random          the first of the n answers: what sampling gives
    majority        the most frequent final number (self-consistency, arXiv 2203.11171)
    orm             the answer with the highest probability at its last token
    prm, product    the highest product of the probabilities of its steps; min: the highest minimum
    ..., vote       the final number with the largest sum of scores
    any correct     the bound: a correct answer is among the n

    python -m later.best_of        out/chains.pt, orm.pt, prm.pt, ... -> out/best_of.json

later/process.py trains the reward models.
"""

import json
from collections import Counter
from dataclasses import dataclass

import torch

from data.batches import encode_prompt
from generate import respond
from later.chains import (is_answer_correct, is_trace_correct, make_sums, read_number, step_ends,
                          vote)
from later.process import solution_score, step_probabilities
from reward import load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, read_flags


@dataclass(frozen=True)
class Config(Flags):
    policy: str = "chains"         # checkpoint in --out that answers
    reward_models: str = "orm,prm,prm_hard,prm_soft"    # checkpoints in --out that choose
    sums: int = 100                # held-out sums
    n: int = 64                    # answers to each; a power of two
    max_new_tokens: int = 64       # longest answer


def choose(numbers, scores):
    """numbers: the final numbers of n answers; scores: {name: their scores}
    -> {chooser: index of the chosen answer}"""
    choices = dict(random=0, majority=vote(numbers))
    for name, values in scores.items():
        choices[name] = values.index(max(values))
        choices[f"{name}, vote"] = vote(numbers, values)
    return choices


def score_solutions(model, examples, ends, is_orm, eos):
    """Scores of N answers, 0 for one that does not end. -> {suffix of the name: [score]}"""
    if is_orm:                                               # the probability at the last token
        ends = [[len(response) - 1] for _, response in examples]
    probabilities = step_probabilities(model, examples, ends)
    n_steps = max(len(steps) for steps in probabilities)
    p, mask = torch.zeros(2, len(examples), n_steps)
    for i, steps in enumerate(probabilities):
        p[i, :len(steps)] = torch.tensor(steps)
        mask[i, :len(steps)] = 1
    ended = torch.tensor([float(response[-1] == eos) for _, response in examples])
    if is_orm:
        return {"": (ended * solution_score(p, mask, "product")).tolist()}
    return {", product": (ended * solution_score(p, mask, "product")).tolist(),
            ", min": (ended * solution_score(p, mask, "min")).tolist()}


def count(problems, texts, ended, scores, n):
    """Splits the answers, which are grouped by problem, into blocks of n.
    -> {chooser: fraction of blocks with a correct choice}, {chooser: fraction of the correct
    choices with a correct trace}"""
    correct, traces = Counter(), Counter()
    for start in range(0, len(texts), n):
        problem, block = problems[start], range(start, start + n)
        choices = choose([read_number(texts[i]) for i in block],
                         {name: values[start:start + n] for name, values in scores.items()})
        for chooser, i in choices.items():
            answer = problem, texts[start + i], ended[start + i]
            correct[chooser] += is_answer_correct(*answer)
            traces[chooser] += is_trace_correct(*answer)
        correct["any correct"] += any(is_answer_correct(problem, texts[i], ended[i]) for i in block)
    blocks = len(texts) // n
    return ({chooser: correct[chooser] / blocks for chooser in correct},
            {chooser: traces[chooser] / max(1, correct[chooser]) for chooser in traces})


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.policy}.pt", device)
    problems = []
    for problem in make_sums(config.sums, "eval", config.seed):
        problems += [problem] * config.n
    responses = respond(policy, tokenizer, [problem.text for problem in problems],
                        config.max_new_tokens, title="best_of")
    examples, ends, texts, ended = [], [], [], []
    for problem, response in zip(problems, responses):
        examples.append((encode_prompt(tokenizer, problem.text), response))
        ends.append(step_ends(tokenizer, response))
        texts.append(tokenizer.decode(response))
        ended.append(response[-1] == tokenizer.eos)

    scores = {}
    for name in config.reward_models.split(","):
        model = load_reward(f"{config.out}/{name}.pt", device)
        for suffix, values in score_solutions(model, examples, ends, name.startswith("orm"),
                                              tokenizer.eos).items():
            scores[name + suffix] = values

    figures = dict(correct={}, trace={})
    n = 1
    while n <= config.n:
        correct, traces = count(problems, texts, ended, scores, n)
        for chooser in correct:
            figures["correct"].setdefault(chooser, {})[n] = correct[chooser]
        for chooser in traces:
            figures["trace"].setdefault(chooser, {})[n] = traces[chooser]
        n *= 2
    with atomic_write(f"{config.out}/best_of.json") as file:
        file.write(json.dumps(figures, indent=2) + "\n")
    for chooser, fractions in figures["correct"].items():
        print(f"{chooser:24} correct {fractions[config.n]:.1%} of the best of {config.n}")


if __name__ == "__main__":
    main()
