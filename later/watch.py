"""Measures a policy during and after training. Training never sees these figures.

    python -m later.watch --names sft,ppo     measures finished checkpoints
                                              -> out/metrics/sft.jsonl, out/metrics/ppo.jsonl

It replaces the logs of these checkpoints, so the demonstrations give it a folder with copies.
"""

import json
from dataclasses import dataclass

import torch

from data.batches import encode_prompt
from data.comparisons import flatten, label_accuracy, split_by_prompt
from data.files import read_prompts
from data.world.utility import measure_utility
from dpo import logprob_all
from generate import respond
from reward import pair_indices
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import Flags, atomic_write, read_flags


@dataclass(frozen=True)
class Config(Flags):
    names: str = "sft"             # checkpoints in --out, separated by commas
    max_new_tokens: int = 48       # longest response


def log_ratio_all(policy, ref, examples, device):
    """log policy/ref of any number of responses.  [(prompt ids, response ids)] -> (N,)"""
    if not examples:
        return torch.zeros(0, device=device)
    return logprob_all(policy, examples, device) - logprob_all(ref, examples, device)


def measure_policy(config, policy, ref, tokenizer, prompts, device):
    """True utility, share of correct responses, KL to the reference and tokens, at temperature 1
    and with random numbers of its own. -> {name: value}, empty if there are no prompts"""
    if not prompts:
        return {}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        responses = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens)
    examples = []
    for prompt, response in zip(prompts, responses):
        examples.append((encode_prompt(tokenizer, prompt.text), response))
    log_ratio = log_ratio_all(policy, ref, examples, device)       # y ~ policy
    tokens = sum(len(response) for response in responses)
    return measure_utility(prompts, responses, tokenizer) | dict(
        kl=log_ratio.mean().item(), length=tokens / len(responses))     # KL(policy || ref)


def measure_heldout(policy, ref, comparisons, device):
    """On held-out comparisons: how often log policy/ref orders a pair as its label, and the mean
    of log policy/ref of the chosen and of the rejected responses."""
    log_ratios = split_by_prompt(log_ratio_all(policy, ref, flatten(comparisons), device),
                                 comparisons)
    chosen = rejected = 0
    for log_ratio in log_ratios:
        w, l = pair_indices(len(log_ratio))
        chosen += log_ratio[w].mean().item() / len(log_ratios)
        rejected += log_ratio[l].mean().item() / len(log_ratios)
    return dict(heldout_accuracy=label_accuracy(log_ratios), heldout_chosen=chosen,
                heldout_rejected=rejected)


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    ref, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    prompts = read_prompts(300, "valid", config.seed)
    for name in config.names.split(","):
        policy, _ = load_gpt(f"{config.out}/{name}.pt", device)
        figures = measure_policy(config, policy, ref, tokenizer, prompts, device)
        with atomic_write(f"{config.out}/metrics/{name}.jsonl") as file:
            file.write(json.dumps(dict(step=-1, **figures)) + "\n")
        print(f"{name}:", ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
