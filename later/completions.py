"""Labels for later/process.py: answers to worked sums, and what is to be said of each step.

Of every step three things are written down: whether it is right, which only this world knows; how
many of N completions from its end reach the right number (Math-Shepherd, arXiv 2312.08935, eq. 3
and 4), which needs nothing but a checker of final answers; and whether the whole answer is right.
First it says how many right answers are lucky chains: their traces are wrong.

    python -m later.completions        out/chains.pt -> out/steps.jsonl, out/steps.json

later/reasoning.py makes chains.pt. Flags of every stage: --out --seed --device --precision.
"""

import json
from dataclasses import dataclass
from math import comb

import tools               # before torch: it says how torch's threads wait
import torch
from tqdm import tqdm

from data.batches import encode_prompt
from later.chains import assess_chains, is_answer_right, label_answer, make_sums, step_ends
from model import load_gpt, respond, sample
from tools.device import start
from tools.flags import read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    begin: str = "chains"          # checkpoint in --out whose answers are labelled
    sums: int = 2000               # each answered once
    completions: int = 8           # per step, N of Math-Shepherd
    max_new_tokens: int = 64       # longest answer
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda


# --- labels ---------------------------------------------------------------------------------------


@torch.no_grad()
def continue_all(policy, prompts, max_new_tokens, eot):
    """Lists of ids -> how the policy goes on with each at temperature 1, in their order"""
    order, found = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), {}
    for first in tqdm(range(0, len(order), 512), desc="label"):
        rows = order[first:first + 512]
        tokens, mask = sample(policy, [prompts[i] for i in rows], max_new_tokens, eos=eot)
        found |= {i: row[kept > 0].tolist() for i, row, kept in zip(rows, tokens, mask)}
    return [found[i] for i in range(len(prompts))]


def label_by_completions(config, policy, tokenizer, sums, answers):
    """From the end of each step `completions` times to the end of the answer. -> for each answer,
    for each of its steps, how many of them say the right number"""
    asked = [(i, ids[:end + 1]) for i, ids in enumerate(answers)
             for end in step_ends(tokenizer, ids) if ids[end] != tokenizer.eos
             for _ in range(config.completions)]
    given = continue_all(policy, [encode_prompt(tokenizer, sums[i].text) + prefix
                                  for i, prefix in asked], config.max_new_tokens, tokenizer.eos)
    hits = [is_answer_right(sums[i], tokenizer.decode(prefix + y), y[-1] == tokenizer.eos)
            for (i, prefix), y in zip(asked, given)]
    found = [[] for _ in answers]
    for first in range(0, len(hits), config.completions):
        found[asked[first][0]].append(sum(hits[first:first + config.completions]))
    for one, ids, some in zip(sums, answers, found):         # after the end nothing can follow
        if ids[-1] == tokenizer.eos:
            some.append(config.completions * is_answer_right(one, tokenizer.decode(ids)))
    return found


def compare_labels(records, completions):
    """How often the hard label of n completions says of a step what is true: all steps up to it are
    right. If h of N hit, n drawn of them hit with chance 1 - C(N-h, n) / C(N, n). Then how many
    wrong steps are called right, and the mean soft label of right and of wrong ones."""
    found, truth, hits = {}, [], []
    for record in records:
        truth += so_far(record["right_steps"])
        hits += record["hits"]
    for n in sorted({min(n, completions) for n in (1, 2, 4, completions)}):
        chance = [1 - comb(completions - h, n) / comb(completions, n) for h in hits]
        found[f"hard_{n}"] = sum(c if t else 1 - c for c, t in zip(chance, truth)) / len(truth)
    right, wrong = ([h for h, t in zip(hits, truth) if t == which] for which in (True, False))
    found["wrong_called_right"] = sum(h > 0 for h in wrong) / max(1, len(wrong))
    found["soft_right"], found["soft_wrong"] = (sum(some) / max(1, len(some)) / completions
                                                for some in (right, wrong))
    return found


def so_far(labels):
    """Whether a step and all before it are right."""
    return [all(labels[:i + 1]) for i in range(len(labels))]


def main():
    """Writes steps.jsonl, an answer a line, and says how many chains are lucky."""
    config = read_flags(__doc__, Config)
    device, _ = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    sums = make_sums(config.sums, "train", config.seed)
    answers = respond(policy, tokenizer, [one.text for one in sums], config.max_new_tokens)
    hits = label_by_completions(config, policy, tokenizer, sums, answers)
    records = []
    for one, ids, some in zip(sums, answers, hits):
        text, ended = tokenizer.decode(ids), ids[-1] == tokenizer.eos
        records.append(dict(
            prompt=encode_prompt(tokenizer, one.text), ids=ids, ends=step_ends(tokenizer, ids),
            right=is_answer_right(one, text, ended),
            right_steps=label_answer(one, text, ended), hits=some, completions=config.completions))
    found = assess_chains(sums, answers, tokenizer) | compare_labels(records, config.completions)
    with write_whole(f"{config.out}/steps.jsonl") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    with write_whole(f"{config.out}/steps.json") as file:
        file.write(json.dumps(found, indent=2) + "\n")
    print(f"{config.out}/steps.jsonl: {len(records)} answers, right {found['right']:.1%}, of these "
          f"by luck {found['lucky']:.1%}; hard labels of {config.completions} completions are "
          f"right on {found[f'hard_{config.completions}']:.1%} of steps")


if __name__ == "__main__":
    run(main)
