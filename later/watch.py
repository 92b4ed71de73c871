"""What is measured of a policy while it is trained and at the end; training never sees it.

    python -m later.watch --names sft,ppo,dpo    the same of finished checkpoints
                                                 -> out/metrics/sft.jsonl, ...

It writes over their logs: give it a folder with copies (later/demos/common.sh).
"""

import json
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import encode_prompt
from data.comparisons import pair_accuracy, rank_values
from data.files import read_watched
from data.world.utility import assess
from dpo import all_logprobs, pairs
from model import load_gpt, respond
from tools.device import start
from tools.flags import read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    out: str = "out"               # folder of the checkpoints
    seed: int = 0                  # of the evaluation prompts and of sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    names: str = "sft"             # checkpoints, apart by commas
    ref: str = "sft"               # what the KL is to
    max_new_tokens: int = 48       # longest answer


def measure_drift(policy, ref, items, device):
    """log policy/ref of every answer of [(prompt, [answers])], in order; (0,) of none"""
    if not any(responses for _, responses in items):
        return torch.zeros(0, device=device)
    return all_logprobs(policy, items, device) - all_logprobs(ref, items, device)


def watch(config, policy, ref, tokenizer, prompts):
    """True utility, right answers, KL to the reference and length at temperature 1. Training draws
    the same random numbers with it and without it. -> {} if there are no prompts"""
    if not prompts:
        return {}
    device = policy.lm_head.weight.device
    generator = torch.Generator(device).manual_seed(config.seed)
    answers = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens,
                      generator=generator)
    items = [(encode_prompt(tokenizer, p.text), [ids]) for p, ids in zip(prompts, answers)]
    kl = measure_drift(policy, ref, items, device).mean()        # y ~ policy: KL(policy || ref)
    return assess(prompts, answers, tokenizer) | dict(
        kl=kl, length=sum(map(len, answers)) / len(answers))


def measure_heldout(policy, ref, items, device):
    """On held-out rankings: how often log pi/ref orders a pair as its label, and how far the better
    and the worse answer moved, a mean over prompts."""
    counts = [len(responses) for _, responses in items]
    moved = measure_drift(policy, ref, items, device).split(counts)
    chosen, rejected = (torch.stack([x[pairs([len(x)])[i]].mean() for x in moved]).mean()
                        for i in (0, 1))
    accuracy = pair_accuracy([x.tolist() for x in moved], [rank_values(range(K)) for K in counts])
    return dict(heldout_accuracy=accuracy, heldout_chosen=chosen, heldout_rejected=rejected)


def describe_end(found):
    """-> the words of the closing line"""
    words = f"held-out accuracy {found['heldout_accuracy']:.1%}, " if "heldout_accuracy" in found \
        else ""
    return words + ("true utility {gold:.2f}, right {right:.0%}, KL {kl:.1f}, "
                    "{length:.1f} tokens".format(**found) if "gold" in found else "")


def main():
    """Checkpoints that exist already, measured as those that later/ trains."""
    config = read_flags(__doc__, Config)
    device, _ = start(config)
    ref, tokenizer = load_gpt(f"{config.out}/{config.ref}.pt", device)
    prompts = read_watched(0, config.seed, n=300)
    for name in config.names.split(","):
        policy, _ = load_gpt(f"{config.out}/{name}.pt", device)
        found = {key: float(x) for key, x in watch(config, policy, ref, tokenizer, prompts).items()}
        with write_whole(f"{config.out}/metrics/{name}.jsonl") as file:
            file.write(json.dumps(dict(step=-1, **found)) + "\n")
        print(f"{config.out}/{name}.pt: {describe_end(found)}")


if __name__ == "__main__":
    run(main)
