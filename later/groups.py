"""How many answers to a prompt? Two things that depend on a group's size G, before any training.

    informative   the share of groups in which some answers are right and some are not: all others
                  have advantage 0 and teach nothing; 1 - p^G - (1-p)^G of a prompt right with p
    variance      of the gradient at equal numbers of answers: E |g - E g|^2 / |E g|^2, where E g is
                  estimated by the mean over `repeats` independent gradients

    python -m later.groups        out/sft.pt, a strict verifier -> out/groups.json

Flags of every stage: --out --seed --device --precision (tools/flags.py).
"""

import json
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import collate, encode_prompt
from later.checkable import make_watched, observe
from later.grpo import dr_grpo_loss, find_advantages, grpo_loss, rloo_loss
from later.verifiers import CHAINS, WORLD, judge_answers, make_task
from model import load_gpt, respond, token_logprobs
from tools.device import start
from tools.flags import check, read_flags, run, write_whole


@dataclass(frozen=True)
class Config:
    begin: str = "sft"             # checkpoint in --out that answers
    signal: str = "strict"         # strict, loose; of worked sums final, trace
    sizes: str = "2,4,8,16"        # of a group
    prompts: int = 100             # with one checkable answer
    answers: int = 128             # per gradient
    repeats: int = 10              # gradients per size and method
    max_new_tokens: int = 48       # longest answer
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda


# --- informative groups ---------------------------------------------------------------------------


def informative(p, G):
    """The mean over prompts, right with chance p each, of 1 - p^G - (1-p)^G. (N,) -> ()"""
    return (1 - p ** G - (1 - p) ** G).mean()


def estimate_informative(right, G):
    """The same from 0 or 1 for n answers to each prompt: the share of groups of G, drawn side by
    side, that hold both. (N, n) -> ()"""
    groups = right.view(len(right), -1, G)
    return (groups.amax(dim=2) > groups.amin(dim=2)).float().mean()


# --- variance -------------------------------------------------------------------------------------


def find_gradient(model, method, examples, scores, G, most, device):
    """-> the gradient at ratio 1, one long vector"""
    tokens, mask = (x.to(device) for x in collate(examples))
    mask = mask[:, 1:]
    adv = find_advantages(method, scores.view(-1, G)).flatten().to(device)
    logp = token_logprobs(model(tokens), tokens)
    old = logp.detach()
    if method == "rloo":
        loss = rloo_loss(logp, adv, mask)
    elif method == "grpo":
        loss = grpo_loss(logp, old, old, adv, mask, 0.2, 0.0)[0]
    else:
        loss = dr_grpo_loss(logp, old, adv, mask, 0.2, most)[0]
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


def relative_variance(grads):
    """E |g - E g|^2 / |E g|^2, both without bias from R independent gradients. (R, P) -> ()"""
    mean = grads.mean(dim=0)
    variance = (grads - mean).square().sum() / (len(grads) - 1)
    return variance / (mean.square().sum() - variance / len(grads)).clamp(min=1e-12)


def draw_answers(model, tokenizer, prompts, G, config):
    """-> [(prompt ids, response ids)], their scores; G answers to a prompt side by side"""
    asked = [p for p in prompts for _ in range(G)]
    ids = respond(model, tokenizer, [p.text for p in asked], config.max_new_tokens)
    examples = [(encode_prompt(tokenizer, p.text), y) for p, y in zip(asked, ids)]
    return examples, judge_answers(config.signal, None, asked, ids, tokenizer)


def main():
    config = read_flags(__doc__, Config)
    check(config.signal in WORLD + CHAINS and config.signal not in ("reward", "steps", "prm"),
          f"--signal {config.signal}: strict, loose, final or trace")
    check(config.repeats > 1, f"--repeats {config.repeats}: a variance needs 2")
    sizes = [int(size) if size.isdecimal() else 0 for size in config.sizes.split(",")]
    check(all(size > 1 and 32 % size == 0 and size <= config.answers for size in sizes),
          f"--sizes {config.sizes}: of 2, 4, 8, 16, 32, with commas, and at most --answers")
    device, generator = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    prompts = make_task(config.signal, 1000, config.seed)
    _, right = draw_answers(model, tokenizer, prompts[:config.prompts], 32, config)
    right = right.view(config.prompts, 32)
    seen = observe(config, model, model, tokenizer, make_watched(config.signal, config.seed, 250))
    found = dict(p=right.mean().item(), informative={}, variance={},
                 seen={key: float(value) for key, value in seen.items()})
    for G in sizes:
        found["informative"][G] = estimate_informative(right, G).item()
        grads = {method: [] for method in ("grpo", "dr_grpo", "rloo")}
        for _ in range(config.repeats):
            drawn = [prompts[i] for i in torch.randint(len(prompts), (config.answers // G,),
                                                       generator=generator)]
            given = draw_answers(model, tokenizer, drawn, G, config)
            for method, some in grads.items():
                some.append(find_gradient(model, method, *given, G, config.max_new_tokens, device))
        found["variance"][G] = {method: relative_variance(torch.stack(some)).item()
                                for method, some in grads.items()}
        print(f"G {G}: informative {found['informative'][G]:.1%}, variance "
              f"{ {method: round(v, 1) for method, v in found['variance'][G].items()} }")
    with write_whole(f"{config.out}/groups.json") as file:
        file.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
