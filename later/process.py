"""Process supervision: a reward model that labels every step, and one that knows only the outcome.

    PRM    at the end of each step: is this step correct? Trained up to and including the first
           wrong step (2305.20050). Ending the answer is its last step, correct if none is missing.
    ORM    at every token: will the final answer be correct? The last token's output is the score.

    loss = mean over labelled tokens of -y log p - (1 - y) log (1 - p)

1 label     The policy answers worked sums. Steps are labelled by the truth, or without it by
            completions (Math-Shepherd, 2312.08935): the policy completes the answer N times from
            the end of a step. The hard label is 1 if any completion reaches the correct number,
            the soft label is the fraction of those that do.
2 train     A reward model for each kind of label.
3 choose    The best of n answers to held-out sums, by
                random, majority    the first; the most frequent final number (2203.11171)
                orm, prm, ...       the highest product of the probabilities of its steps
                ..., vote           the final number with the largest sum of scores
                any correct         the bound: a correct answer is among the n

    python -m later.process      out/chains.pt -> out/orm.pt, prm.pt, prm_hard.pt, prm_soft.pt,
                                 out/process.json
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from data.batches import apply_in_batches, batch_by_length, collate, encode_prompt
from generate import generate, respond
from later.chains import (is_answer_correct, label_answer, make_sums, measure_chains, read_number,
                          step_ends, vote)
from later.fit import fit
from later.measure import decode_answers
from model import masked_mean
from reward import RewardModel
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, atomic_write, check, read_flags
from tools.optimizers import make_muon_and_adam

NAMES = dict(outcome="orm", truth="prm", hard="prm_hard", soft="prm_soft")


@dataclass(frozen=True)
class Config(TrainingFlags):
    sums: int = 4000               # to train on, each answered once
    completions: int = 8           # per step, N of Math-Shepherd
    epochs: int = 6                # passes over the answers; paper 2
    batch: int = 32                # answers per step
    lr: float = 5e-4               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate of the blocks' matrices (Muon)
    test_sums: int = 100           # held-out sums
    n: int = 64                    # answers to each; a power of two
    max_new_tokens: int = 64       # longest answer


# --- equations ------------------------------------------------------------------------------------


def process_loss(logits, labels, mask):
    """Mean of -y log p - (1 - y) log (1 - p) over the mask, p = sigmoid(logit) (2305.20050, section
    2.6; 2312.08935, eq. 2). The mask is 1 at the ends of steps; for an ORM at every response token.
    Three tensors of one shape -> ()"""
    assert logits.shape == labels.shape == mask.shape
    return masked_mean(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), mask)


def step_probabilities(model, examples, ends):
    """[(prompt ids, response ids)], and per response the indices where its steps end
    -> per response a list of the steps' p"""
    tokens, mask = collate(examples, model.head.weight.device)
    p = apply_in_batches(lambda tokens, _: model(tokens), tokens, mask).sigmoid().cpu()
    probabilities = []
    for row, (prompt, _), indices in zip(p, examples, ends):
        probabilities.append([row[len(prompt) + i].item() for i in indices])
    return probabilities


# --- 1 label --------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """An answer. Its steps end at the indices `ends` of the response."""
    prompt: list            # token ids
    response: list
    ends: list
    correct: bool           # the final number
    correct_steps: list     # per step; only this small world knows it
    hits: list              # per step, the fraction of completions that reach the correct number


def count_hits(config, policy, tokenizer, sums, responses):
    """-> for each response and each of its steps the fraction of completions from its end that
    reach the correct number. Nothing follows the end of an answer: its label is the answer's."""
    hits, prefixes, places = [], [], []
    for i, (problem, ids) in enumerate(zip(sums, responses)):
        hits.append([])
        for end in step_ends(tokenizer, ids):
            if ids[end] == tokenizer.eos:
                hits[i].append(float(is_answer_correct(problem, tokenizer.decode(ids))))
            else:
                places.append((i, len(hits[i]), end + 1))
                prefix = encode_prompt(tokenizer, problem.text) + ids[:end + 1]
                prefixes += [prefix] * config.completions
                hits[i].append(0.0)
    completions = generate(policy, prefixes, config.max_new_tokens, 1.0, tokenizer.eos, "label")
    for j, completion in enumerate(completions):
        i, step, length = places[j // config.completions]
        text = tokenizer.decode(responses[i][:length] + completion)
        correct = is_answer_correct(sums[i], text, completion[-1] == tokenizer.eos)
        hits[i][step] += correct / config.completions
    return hits


def label(config, policy, tokenizer):
    """-> [Labelled], and statistics of the answers"""
    sums = make_sums(config.sums, "train", config.seed)
    responses = respond(policy, tokenizer, [problem.text for problem in sums],
                        config.max_new_tokens)
    hits = count_hits(config, policy, tokenizer, sums, responses)
    answers, agreements = [], []
    for problem, ids, step_hits in zip(sums, responses, hits):
        answer = problem, tokenizer.decode(ids), ids[-1] == tokenizer.eos
        correct_steps = label_answer(*answer)
        if step_hits:
            answers.append(Labelled(encode_prompt(tokenizer, problem.text), ids,
                                    step_ends(tokenizer, ids), is_answer_correct(*answer),
                                    correct_steps, step_hits))
        for i, fraction in enumerate(step_hits):      # a step is correct if all before it are, too
            agreements.append((fraction > 0) == all(correct_steps[:i + 1]))
    figures = measure_chains(sums, responses, tokenizer)
    return answers, figures | dict(hard_labels_correct=sum(agreements) / len(agreements))


# --- 2 train --------------------------------------------------------------------------------------


def find_targets(answer, labels):
    """Which indices of the response are labelled, and with what. -> two lists"""
    if labels == "outcome":
        n = len(answer.response)
        return list(range(n)), [float(answer.correct)] * n
    if labels == "truth":
        targets = [float(correct) for correct in answer.correct_steps]
        stop = targets.index(0.0) + 1 if 0.0 in targets else len(targets)
        return answer.ends[:stop], targets[:stop]
    if labels == "hard":
        return answer.ends, [float(hits > 0) for hits in answer.hits]
    return answer.ends, answer.hits


def collate_targets(answers, labels, device="cpu"):
    """-> tokens, targets, and mask, each (B, T); the mask is 1 on labelled tokens"""
    tokens, _ = collate([(answer.prompt, answer.response) for answer in answers], device)
    targets = torch.zeros(tokens.shape, device=device)
    mask = torch.zeros_like(targets)
    for b, answer in enumerate(answers):
        for i, target in zip(*find_targets(answer, labels)):
            targets[b, len(answer.prompt) + i] = target
            mask[b, len(answer.prompt) + i] = 1
    return tokens, targets, mask


def train(config, labels, answers, device):
    """-> out/<name>.pt, and the model"""
    gpt, tokenizer = load_gpt(f"{config.out}/chains.pt", device)
    model, batches = RewardModel(gpt).to(device), []
    lengths = [len(answer.prompt) + len(answer.response) for answer in answers]
    for _ in range(config.epochs):
        batches += batch_by_length(lengths, config.batch)

    def loss_fn(step):
        batch = [answers[i] for i in batches[step]]
        tokens, targets, mask = collate_targets(batch, labels, device)
        return process_loss(model(tokens), targets, mask)

    optimizers = make_muon_and_adam(model, config.muon_lr, config.lr)
    run = fit(config, NAMES[labels], model, optimizers, len(batches), loss_fn)
    run.finish(model, tokenizer)
    return model


# --- 3 choose -------------------------------------------------------------------------------------


def score_answers(model, examples, ends, eos):
    """The product of the probabilities of an answer's steps (2305.20050, section 2.6), 0 for one
    that does not end. -> [score]"""
    scores = []
    for (_, response), steps in zip(examples, step_probabilities(model, examples, ends)):
        scores.append(math.prod(steps) if response[-1] == eos else 0.0)
    return scores


def choose(numbers, scores):
    """numbers: the final numbers of n answers; scores: {name: their scores}
    -> {chooser: index of the chosen answer}"""
    choices = dict(random=0, majority=vote(numbers))
    for name, values in scores.items():
        choices[name] = values.index(max(values))
        choices[f"{name}, vote"] = vote(numbers, values)
    return choices


def count_correct(answers, scores, n):
    """answers: [(sum, text, ended)], grouped by sum; each block of n of them has one choice.
    -> {chooser: fraction of blocks with a correct choice}"""
    correct = Counter()
    for start in range(0, len(answers), n):
        block = answers[start:start + n]
        block_scores = {name: values[start:start + n] for name, values in scores.items()}
        choices = choose([read_number(text) for _, text, _ in block], block_scores)
        for chooser, i in choices.items():
            correct[chooser] += is_answer_correct(*block[i])
        correct["any correct"] += any(is_answer_correct(*answer) for answer in block)
    n_blocks = len(answers) // n
    return {chooser: count / n_blocks for chooser, count in correct.items()}


def test(config, models, policy, tokenizer):
    """models: {name: reward model} -> {chooser: {n: fraction of correct choices}}"""
    sums = []
    for problem in make_sums(config.test_sums, "eval", config.seed):
        sums += [problem] * config.n
    responses = respond(policy, tokenizer, [problem.text for problem in sums],
                        config.max_new_tokens, title="choose")
    examples, ends, last_tokens = [], [], []
    for problem, ids in zip(sums, responses):
        examples.append((encode_prompt(tokenizer, problem.text), ids))
        ends.append(step_ends(tokenizer, ids))
        last_tokens.append([len(ids) - 1])
    scores = {}
    for name, model in models.items():                       # an ORM has one step, the answer
        steps = last_tokens if name == "orm" else ends
        scores[name] = score_answers(model, examples, steps, tokenizer.eos)

    answers, figures, n = decode_answers(sums, responses, tokenizer), {}, 1
    while n <= config.n:
        for chooser, correct in count_correct(answers, scores, n).items():
            figures.setdefault(chooser, {})[n] = correct
        n *= 2
    return figures


def main():
    config = read_flags(__doc__, Config)
    check(config.n & (config.n - 1) == 0, f"--n {config.n} must be a power of 2")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/chains.pt", device)
    answers, figures = label(config, policy, tokenizer)
    models = {name: train(config, labels, answers, device) for labels, name in NAMES.items()}
    choices = test(config, models, policy, tokenizer)
    with atomic_write(f"{config.out}/process.json") as file:
        file.write(json.dumps(dict(labels=figures, **choices), indent=2) + "\n")
    for chooser, values in choices.items():
        print(f"{chooser:16} correct {values[config.n]:.1%} of the best of {config.n}")


if __name__ == "__main__":
    main()
