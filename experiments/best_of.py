"""Best of n: one of n SFT answers is chosen, by the reward model or by SFT's log-probability, which
needs no labels; nothing is trained.

    python -m experiments.best_of      out/sft.pt, out/reward.pt -> out/best_of.json

The KL of best of n to SFT is log n - (n-1)/n if no two answers are equal. Here many are, so the
exact KL is smaller (Beirami et al., arXiv 2401.01879).
"""

import json
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from data.batches import encode_prompt
from data.world.text import make_prompts
from data.world.utility import utility
from dpo import logprob_all
from generate import respond
from reward import load_reward, score_all
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, read_flags


@dataclass(frozen=True)
class Config(Flags):
    prompts: int = 100             # evaluation prompts
    n: int = 64                    # the largest n
    max_new_tokens: int = 48       # longest response


def best_of(counts, scores, utilities, n):
    """For one prompt, whose A different answers are sorted by score, the worst first. counts: how
    often each was sampled.  Three (A,) -> KL to SFT, mean score, mean true utility of best of n"""
    p = counts / counts.sum()
    q = np.diff(np.cumsum(p) ** n, prepend=0)            # how often each is the best of n draws
    kl = np.sum(q * np.log(np.maximum(q, 1e-300) / p))
    return kl, q @ scores, q @ utilities


def count_answers(prompt, responses, scores, tokenizer):
    """The different responses to a prompt -> counts, scores, utilities, (A,) each, worst first"""
    counts, score_of = Counter(responses), dict(zip(responses, scores))
    table = []
    for ids in sorted(counts, key=score_of.get):
        true_utility = utility(prompt, tokenizer.decode(ids), ids[-1] == tokenizer.eos)
        table.append((counts[ids], score_of[ids], true_utility))
    return np.array(table).T


def sample_answers(config, device):
    """2 n samples represent what SFT says to a prompt. The KL is exact for their frequencies. It is
    an underestimate at the largest n, since it cannot exceed log 2 n.
    -> `count_answers` of every prompt by the reward model's score, and by log-probability"""
    sft, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    reward_model = load_reward(f"{config.out}/reward.pt", device, (sft, tokenizer))
    by_score, by_logprob = [], []
    for prompt in tqdm(make_prompts(config.prompts, "eval", config.seed), "best of n"):
        texts = [prompt.text] * (2 * config.n)
        responses = respond(sft, tokenizer, texts, config.max_new_tokens)
        ids = encode_prompt(tokenizer, prompt.text)
        examples = [(ids, response) for response in responses]
        scores = score_all(reward_model, examples, device).tolist()
        logprobs = logprob_all(sft, examples, device).tolist()
        responses = [tuple(response) for response in responses]
        by_score.append(count_answers(prompt, responses, scores, tokenizer))
        by_logprob.append(count_answers(prompt, responses, logprobs, tokenizer))
    return by_score, by_logprob


def main():
    config = read_flags(__doc__, Config)
    by_score, by_logprob = sample_answers(config, setup(config))
    table, n = [], 1
    while n <= config.n:
        kl, score, true_utility = np.mean([best_of(*answers, n) for answers in by_score], axis=0)
        kl_logprob, _, utility_logprob = np.mean([best_of(*answers, n) for answers in by_logprob],
                                                 axis=0)
        table.append(dict(n=n, kl_formula=math.log(n) - (n - 1) / n, kl=kl, score=score,
                          utility=true_utility, kl_logprob=kl_logprob,
                          utility_logprob=utility_logprob))
        print(f"n {n:3}: KL {kl:.2f}, score {score:.2f}, true utility {true_utility:.2f}; by "
              f"log-probability: KL {kl_logprob:.2f}, true utility {utility_logprob:.2f}")
        n *= 2
    with atomic_write(f"{config.out}/best_of.json") as file:
        json.dump(table, file, indent=2)


if __name__ == "__main__":
    main()
