"""Best of n by different judges: who finds the right answer among many, and is its trace right?

    random          the first of n: what sampling gives
    majority        the most frequent final number (self-consistency, arXiv 2203.11171)
    orm             the answer with the highest score at its last token
    prm, product    the highest product of the chances that its steps are right; min: the lowest
    any right       what a perfect judge of answers would find

    python -m later.best_of        out/chains.pt, orm.pt, prm.pt, ... -> out/best_of.json

Flags of every stage: --out --seed --device --precision (tools/flags.py).
"""

import json
from collections import Counter
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import encode_prompt
from later.chains import (assess_chains, is_answer_right, is_trace_right, make_sums, read_number,
                          step_ends, vote)
from later.process import solution_score, step_probabilities
from model import load_gpt, respond
from reward import load_reward
from tools.device import start
from tools.flags import check, read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    policy: str = "chains"         # checkpoint in --out whose answers are chosen from
    judges: str = "orm,prm,prm_hard,prm_soft"    # checkpoints in --out that choose
    sums: int = 100                # held-out sums
    n: int = 64                    # answers to each, a power of two
    max_new_tokens: int = 64       # longest answer
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda


# --- who chooses ----------------------------------------------------------------------------------


def best(scores):
    """The index of the highest score, the first of several."""
    return max(range(len(scores)), key=scores.__getitem__)


def choose(said, scores):
    """said: the final numbers of n answers; scores: {judge: their n scores} -> {who: index}"""
    found = dict(random=0, majority=vote(said))
    for judge, some in scores.items():
        found[judge] = best(some)
        found[f"{judge}, vote"] = vote(said, some)
    return found


def score_solutions(model, examples, ends, outcome, eot):
    """-> {how: (N,) scores}: of an ORM the chance at the last token, of a PRM product and min; an
    answer that never ends is worth 0"""
    ended = torch.tensor([float(response[-1:] == [eot]) for _, response in examples])
    if outcome:
        last = [[len(response) - 1] for _, response in examples]
        return {"": ended * torch.tensor(step_probabilities(model, examples, last)).squeeze(1)}
    chances = step_probabilities(model, examples, ends)
    S = max(map(len, chances))
    padded = torch.tensor([some + [0.0] * (S - len(some)) for some in chances])
    mask = torch.tensor([[1.0] * len(some) + [0.0] * (S - len(some)) for some in chances])
    return {f" {how}": ended * solution_score(padded, mask, how) for how in ("product", "min")}


# --- main -----------------------------------------------------------------------------------------


def count(sums, texts, ended, scores, n):
    """Of all blocks of n answers: how often each choice is right, and how many of the right ones
    have a right trace. -> {who: (right, trace)}"""
    right, trace, blocks = Counter(), Counter(), 0
    for i, one in enumerate(sums):
        for first in range(0, len(texts[i]), n):
            block = slice(first, first + n)
            answers, ends = texts[i][block], ended[i][block]
            picked = choose([read_number(answer) for answer in answers],
                            {judge: some[i][block].tolist() for judge, some in scores.items()})
            good = [is_answer_right(one, *answer) for answer in zip(answers, ends)]
            blocks += 1
            right["any right"] += any(good)
            for who, j in picked.items():
                right[who] += good[j]
                trace[who] += good[j] and is_trace_right(one, answers[j], ends[j])
    return {who: (right[who] / blocks, trace[who] / max(1, right[who])) for who in right}


def main():
    config = read_flags(__doc__, Config)
    check(config.n & (config.n - 1) == 0, f"--n {config.n}: a power of two")
    device, _ = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.policy}.pt", device)
    sums = make_sums(config.sums, "eval", config.seed)
    asked = [one for one in sums for _ in range(config.n)]
    ids = respond(policy, tokenizer, [one.text for one in asked], config.max_new_tokens,
                  bar="best_of")
    examples = [(encode_prompt(tokenizer, one.text), y) for one, y in zip(asked, ids)]
    ends, scores = [step_ends(tokenizer, y) for y in ids], {}
    for name in config.judges.split(","):
        model = load_reward(f"{config.out}/{name}.pt", device)
        for how, some in score_solutions(model, examples, ends, name.startswith("orm"),
                                         tokenizer.eos).items():
            scores[name + how] = some.view(len(sums), config.n)
    texts = [[tokenizer.decode(y) for y in ids[i:i + config.n]]
             for i in range(0, len(ids), config.n)]
    ended = [[y[-1] == tokenizer.eos for y in ids[i:i + config.n]]
             for i in range(0, len(ids), config.n)]
    found = dict(policy=assess_chains(asked, ids, tokenizer), best_of={})
    n = 1
    while n <= config.n:
        found["best_of"][n] = count(sums, texts, ended, scores, n)
        n *= 2
    with write_whole(f"{config.out}/best_of.json") as file:
        file.write(json.dumps(found, indent=2) + "\n")
    print(f"{config.out}/best_of.json: best of {config.n} " + ", ".join(
        f"{who} {right:.1%}" for who, (right, _) in found["best_of"][config.n].items()))


if __name__ == "__main__":
    run(main)
