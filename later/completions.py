"""Labelled answers for later/process.py: worked sums, and for each step what is known about it.

Each step gets three labels: whether it is correct, which only this small world knows; how many of N
completions from its end reach the correct number (Math-Shepherd, arXiv 2312.08935, eq. 3 and 4),
which takes no more than a check of final answers; and whether the whole answer is correct. Look
first at the fraction of lucky chains: without any, no step label can tell more than the outcome.

    python -m later.completions        out/chains.pt -> out/steps.jsonl, out/steps.json
"""

import json
from dataclasses import dataclass
from math import comb

from data.batches import encode_prompt
from generate import generate, respond
from later.chains import is_answer_correct, label_answer, make_sums, measure_chains, step_ends
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, read_flags


@dataclass(frozen=True)
class Config(Flags):
    init_from: str = "chains"      # checkpoint in --out whose answers are labelled
    sums: int = 2000               # each answered once
    completions: int = 8           # per step, N of Math-Shepherd
    max_new_tokens: int = 64       # longest answer


def label_by_completions(config, policy, tokenizer, sums, responses):
    """-> for each response and each of its steps the number of completions from its end that reach
    the correct number. Nothing follows the end of an answer: its label is that of the answer."""
    hits, prefixes, places = [], [], []
    for i, (problem, ids) in enumerate(zip(sums, responses)):
        hits.append([])
        for end in step_ends(tokenizer, ids):
            if ids[end] == tokenizer.eos:
                correct = is_answer_correct(problem, tokenizer.decode(ids))
                hits[i].append(config.completions * correct)
            else:
                places.append((i, len(hits[i]), end + 1))
                prefixes += [encode_prompt(tokenizer, problem.text) + ids[:end + 1]
                             ] * config.completions
                hits[i].append(0)
    completions = generate(policy, prefixes, config.max_new_tokens, 1.0, tokenizer.eos, "label")
    for j, completion in enumerate(completions):
        i, step, length = places[j // config.completions]
        text = tokenizer.decode(responses[i][:length] + completion)
        hits[i][step] += is_answer_correct(sums[i], text, completion[-1] == tokenizer.eos)
    return hits


def compare_labels(records, completions):
    """How often the hard label of n completions agrees with the truth, that a step and all before
    it are correct. If h of N completions are hits, n drawn from them contain one with probability
    1 - C(N-h, n) / C(N, n). Also how many wrong steps get the hard label 1."""
    hits, truth = [], []
    for record in records:
        hits += record["hits"]
        for i in range(len(record["hits"])):
            truth.append(all(record["correct_steps"][:i + 1]))
    figures = {}
    for n in sorted({1, min(2, completions), min(4, completions), completions}):
        agreement = 0
        for h, correct in zip(hits, truth):
            p = 1 - comb(completions - h, n) / comb(completions, n)
            agreement += p if correct else 1 - p
        figures[f"hard_{n}"] = agreement / len(hits)
    wrong = [h for h, correct in zip(hits, truth) if not correct]
    figures["wrong_labelled_correct"] = sum(h > 0 for h in wrong) / max(1, len(wrong))
    return figures


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    sums = make_sums(config.sums, "train", config.seed)
    responses = respond(policy, tokenizer, [problem.text for problem in sums],
                        config.max_new_tokens)
    hits = label_by_completions(config, policy, tokenizer, sums, responses)
    records = []
    for problem, ids, step_hits in zip(sums, responses, hits):
        text, ended = tokenizer.decode(ids), ids[-1] == tokenizer.eos
        records.append(dict(
            prompt=encode_prompt(tokenizer, problem.text), ids=ids, ends=step_ends(tokenizer, ids),
            correct=is_answer_correct(problem, text, ended),
            correct_steps=label_answer(problem, text, ended), hits=step_hits,
            completions=config.completions))
    figures = measure_chains(sums, responses, tokenizer)
    figures |= compare_labels(records, config.completions)
    with atomic_write(f"{config.out}/steps.jsonl") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
    with atomic_write(f"{config.out}/steps.json") as file:
        file.write(json.dumps(figures, indent=2) + "\n")
    print(f"{config.out}/steps.jsonl:",
          ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
