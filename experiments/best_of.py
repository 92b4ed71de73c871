"""Best of n: the reward model picks one of n SFT answers; nothing is trained.

    python -m experiments.best_of      out/sft.pt, out/reward.pt -> out/best_of.json

The KL of best of n to SFT is log n - (n-1)/n if no two answers are equal. Here many are, so the
exact KL is smaller (Beirami et al., arXiv 2401.01879).
"""

import json
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data.batches import encode_prompt
from data.world.text import make_prompts
from data.world.utility import utility
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


def best_of_distribution(counts, n):
    """How often each answer is the best of n draws. counts: how often each answer was sampled, the
    worst answer first.  (A,) -> (A,)"""
    share_up_to = np.cumsum(counts) / np.sum(counts)
    return np.diff(share_up_to ** n, prepend=0)


def best_of(counts, scores, utilities, n):
    """For one prompt, whose A different answers are sorted by score.  Three (A,)
    -> KL to SFT, mean score, mean true utility of best of n"""
    p = counts / counts.sum()
    q = best_of_distribution(counts, n)
    kl = np.sum(q * np.log(np.maximum(q, 1e-300) / p))
    return kl, q @ scores, q @ utilities


def sample_answers(config, tokenizer, sft, reward_model, device):
    """2 n samples represent what SFT says to a prompt. The KL is exact for their frequencies. It is
    an underestimate at the largest n, since it cannot exceed log 2 n.
    -> for every prompt: counts, scores, utilities, (A,) each, sorted by score"""
    prompts = make_prompts(config.prompts, "eval", config.seed)
    texts = []
    for prompt in prompts:
        texts += [prompt.text] * (2 * config.n)
    responses = respond(sft, tokenizer, texts, config.max_new_tokens, title="best of n")
    examples = []
    for text, response in zip(texts, responses):
        examples.append((encode_prompt(tokenizer, text), response))
    scores = score_all(reward_model, examples, device).tolist()

    answers = []
    for i, prompt in enumerate(prompts):
        rows = slice(i * 2 * config.n, (i + 1) * 2 * config.n)
        counts = Counter(map(tuple, responses[rows]))
        score_of = dict(zip(map(tuple, responses[rows]), scores[rows]))
        table = []
        for ids in sorted(counts, key=score_of.get):
            true_utility = utility(prompt, tokenizer.decode(ids), ids[-1] == tokenizer.eos)
            table.append((counts[ids], score_of[ids], true_utility))
        answers.append(np.array(table).T)
    return answers


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    sft, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    reward_model = load_reward(f"{config.out}/reward.pt", device)
    answers = sample_answers(config, tokenizer, sft, reward_model, device)
    table, n = [], 1
    while n <= config.n:
        measured = [best_of(*answers_of_prompt, n) for answers_of_prompt in answers]
        kl, score, true_utility = np.mean(measured, axis=0)
        formula = math.log(n) - (n - 1) / n
        table.append(dict(n=n, kl_formula=formula, kl=kl, score=score, utility=true_utility))
        print(f"best of {n:3}: KL {kl:.2f} (log n - (n-1)/n = {formula:.2f}), score {score:.2f}, "
              f"true utility {true_utility:.2f}")
        n *= 2
    with atomic_write(f"{config.out}/best_of.json") as file:
        json.dump(table, file, indent=2)


if __name__ == "__main__":
    main()
