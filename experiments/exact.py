"""What can be counted and need not be sampled: the best of n, and the closed form of the objective.

    python experiments/exact.py --measure best_of    out/sft.pt, reward.pt -> out/best_of.json;
                                                     with --how mean of all out/reward-*.pt
    python experiments/exact.py --measure rank       answers of sft.pt, ranked by reward.pt as by
                                                     Bradley and Terry -> out/comparisons.jsonl
    python experiments/exact.py --measure optimum    the distance of every policy in out/ from
                                                     ref exp(r / beta) / Z -> out/optimum.json

The last two are about answers of one token, all of which can be enumerated.
"""

import json
import math
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait
import torch
from tqdm import tqdm

from data import comparisons
from data.batches import encode_prompt
from data.world.utility import utility
from data.world.text import make_prompts
from experiments.ensemble import COMBINE, load_models
from model import load_gpt, respond
from reward import load_reward, score_all
from tools.device import start
from tools.flags import check, read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    measure: str = "best_of"       # best_of, rank or optimum
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts and sampling
    device: str = "auto"           # cpu, cuda or auto
    prompts: int = 100             # prompts to measure on, or to rank answers to
    n: int = 64                    # best_of: up to so many answers
    how: str = ""                  # best_of by several reward models, as in ensemble.py
    beta: float = 0.1              # optimum: of the objective


# --- best of n ------------------------------------------------------------------------------------


def best_of_distribution(counts, n):
    """How often each answer is the best of n draws. counts: how often each is drawn, worst first.
    (A,) -> (A,)"""
    below = np.cumsum(counts) / np.sum(counts)
    return np.diff(below ** n, prepend=0)


def best_of(config, model, reward_model, tokenizer, device):
    """KL, score and true utility of the best of 1, 2, 4, ... SFT answers by the reward model, or
    by several.

    2 n answers to a prompt stand for all that the model says to it: exact for their frequencies,
    so at the largest n the KL, which then cannot exceed log 2 n, is an underestimate.
    """
    asked, many = make_prompts(config.prompts, "eval", config.seed), 2 * config.n
    ids = respond(model, tokenizer, [p.text for p in asked for _ in range(many)], 48)
    models = load_models(config.out, config.how, device) if config.how else [reward_model]
    pairs = [(encode_prompt(tokenizer, asked[i // many].text), row) for i, row in enumerate(ids)]
    scores = torch.stack([score_all(one, pairs, device) for one in models])
    points = COMBINE[config.how or "one"](scores).tolist()
    answers = []                              # a prompt: counts, scores, utilities, worst first
    for i, prompt in enumerate(asked):
        mine = slice(i * many, (i + 1) * many)
        counted = sorted(Counter(zip(points[mine], map(tuple, ids[mine]))).items())
        answers.append((np.array([count for _, count in counted]),
                        np.array([point for (point, _), _ in counted]),
                        np.array([utility(prompt, tokenizer.decode(row), row[-1] == tokenizer.eos)
                                  for (_, row), _ in counted])))
    rows = []
    for n in (2 ** i for i in range(config.n.bit_length())):
        found = []
        for counts, scores, utilities in answers:
            p, q = counts / many, best_of_distribution(counts, n)
            kl = np.sum(q * np.log(np.maximum(q, 1e-300) / p))
            found.append((kl, q @ scores, q @ utilities))
        kl, score, utility = np.mean(found, axis=0)
        rows.append(dict(n=n, kl_formula=math.log(n) - (n - 1) / n, kl=kl, score=score,
                         gold=utility))
        print("best of {n:4}: KL {kl:.2f} (log n - (n-1)/n = {kl_formula:.2f}), "
              "score {score:.2f}, true utility {gold:.2f}".format(**rows[-1]))
    return "best_of.json", rows


# --- answers of one token -------------------------------------------------------------------------


def closed_form(ref_logp, reward, beta):
    """log pi* of pi* = ref exp(reward / beta) / Z (arXiv 2305.18290, eq. 4). (B, V) -> (B, V)"""
    return (ref_logp + reward / beta).log_softmax(dim=-1)


def kl(logp, logq):
    """KL(p || q) in nats. (B, V), (B, V) -> (B,)"""
    return (logp.exp() * (logp - logq)).sum(dim=-1)


@torch.no_grad()
def first_token(model, asked, device):
    """log pi(y | x) for every token y. -> (B, V)"""
    return torch.stack([model(torch.tensor([prompt], device=device))[0, -1].log_softmax(dim=-1)
                        for prompt in asked])


@torch.no_grad()
def every_reward(reward_model, asked, vocab_size, device):
    """r(x, y) for every token y as the whole answer. -> (B, V)"""
    every = torch.arange(vocab_size, device=device)[:, None]
    return torch.stack([
        reward_model(torch.cat([torch.tensor(prompt, device=device).expand(vocab_size, -1), every],
                               dim=1))[:, -1] for prompt in tqdm(asked, desc="rewards")])


def optimum(config, ref, reward_model, tokenizer, device):
    """J(pi*) - J(pi) = beta KL(pi || pi*): the distance is what the objective still lacks."""
    asked = [encode_prompt(tokenizer, p.text)
             for p in make_prompts(config.prompts, "train", config.seed)]
    ref_logp = first_token(ref, asked, device)
    reward = every_reward(reward_model, asked, tokenizer.vocab_size, device)
    best, found = closed_form(ref_logp, reward, config.beta), {}
    found["pi*"] = dict(distance=0.0, kl=kl(best, ref_logp).mean().item(),
                        reward=(best.exp() * reward).sum(dim=-1).mean().item())
    for path in sorted(Path(config.out).glob("*.pt")):
        if path.stem == "reward":
            continue
        policy, _ = load_gpt(path, device)
        logp = first_token(policy, asked, device)
        found[path.stem] = dict(distance=kl(logp, best).mean().item(),
                                kl=kl(logp, ref_logp).mean().item(),
                                reward=(logp.exp() * reward).sum(dim=-1).mean().item())
    for name, row in found.items():
        print("{:10} {distance:.3f} nats from pi*, KL to ref {kl:.3f}, reward {reward:.3f}".format(
            name, **row))
    return "optimum.json", found


def rank(config, model, reward_model, tokenizer, device, k=6):
    """Rankings of one-token answers whose pairs follow Bradley and Terry with r = the reward model.

    Scores plus Gumbel noise, sorted, are a draw from Plackett and Luce's model, and its pairs are
    Bradley and Terry's: what DPO takes labelers to be.
    """
    rng = random.Random(config.seed)
    asked = make_prompts(config.prompts, "train", config.seed)
    ids = respond(model, tokenizer, [p.text for p in asked for _ in range(k)], 1)
    for i, prompt in enumerate(asked):
        drawn = [list(row) for row in dict.fromkeys(map(tuple, ids[i * k:(i + 1) * k]))]
        if len(drawn) < 2:
            continue
        start = encode_prompt(tokenizer, prompt.text)
        points = score_all(reward_model, [(start, row) for row in drawn], device).tolist()
        seen = [point - math.log(-math.log(rng.random())) for point in points]
        yield dict(prompt=prompt.text, responses=[tokenizer.decode(row) for row in drawn],
                   ranking=sorted(range(len(drawn)), key=lambda j: -seen[j]), ids=drawn,
                   labeler="reward model")


def main():
    config = read_flags(__doc__, Config)
    check(config.measure in ("best_of", "rank", "optimum"),
          f"--measure {config.measure}: best_of, rank or optimum")
    check(config.beta > 0, f"--beta {config.beta} must be above 0")
    device, _ = start(config)
    out = Path(config.out)
    sft, tokenizer = load_gpt(out / "sft.pt", device)
    given = config, sft, load_reward(out / "reward.pt", device), tokenizer, device
    if config.measure == "rank":
        return comparisons.write(out / "comparisons.jsonl", rank(*given))
    name, found = best_of(*given) if config.measure == "best_of" else optimum(*given)
    with write_whole(out / name) as file:
        file.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
