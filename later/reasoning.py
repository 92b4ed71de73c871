"""Reasoning, in small: sums of four to six numbers, worked one step a sentence (later/chains.py).

The base model and the SFT model for it are made by a short further training of base.pt; its pages
and demonstrations are this script's own. People slip, so SFT is right about one time in three. Then

    python -m later.reasoning --stage base    base.pt, pages          -> out/chains_base.pt
    python -m later.reasoning --stage sft     chains_base.pt, demonstrations -> out/chains.pt
    python -m later.grpo --begin chains --signal final     RLVR on the final answer
    python -m later.reasoning --stage best    chains.pt -> out/chains_best.pt, rejection sampling:
        sample k answers to each sum, keep the right ones, imitate them, repeat (STaR, 2203.14465;
        RAFT, 2304.06767); --keep random keeps as many whether right or wrong, the control
    python -m later.reasoning --stage measure --models chains,final   -> out/reasoning.json

Flags of every stage: --out --seed --device --precision --resume (tools/flags.py).
"""

import json
import random
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import batch_by_length, collate, draw_windows, encode_example, encode_prompt, pack
from dpo import all_logprobs
from later.chains import (assess_chains, is_answer_right, make_page, make_sums, make_worked,
                          read_number, vote)
from model import load_gpt, respond
from sft import lm_loss
from tools.device import start
from tools.flags import Training, check, read_flags, run, write_whole
from tools.optimizers import cosine, make_adam, make_muon_and_adam, set_lr
from tools.steps import Steps, mean_of


@dataclass(frozen=True)
class Base(Training):
    stage: str = "base"            # base, sft, best or measure; each has flags of its own
    begin: str = "base"            # checkpoint in --out to begin with
    pages: int = 4000              # additions and worked sums
    steps: int = 400               # optimiser steps
    batch: int = 16                # windows per step
    lr: float = 1e-3               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate of the blocks' matrices (Muon)


@dataclass(frozen=True)
class Finetune(Training):
    stage: str = "sft"             # sft, base, best or measure; each has flags of its own
    begin: str = "chains_base"     # checkpoint in --out to begin with
    demonstrations: int = 4000     # sums that people worked
    epochs: int = 2                # passes over them
    batch: int = 32                # demonstrations per step
    lr: float = 5e-4               # peak learning rate (Adam)
    muon_lr: float = 0.003         # peak learning rate of the blocks' matrices (Muon)


@dataclass(frozen=True)
class Best(Training):
    stage: str = "best"            # best, base, sft or measure; each has flags of its own
    begin: str = "chains"          # checkpoint in --out to begin with
    name: str = "chains_best"      # of the checkpoint that is written
    keep: str = "right"            # right or random
    rounds: int = 10               # of sampling and imitating
    asked: int = 192               # sums per round
    k: int = 4                     # answers per sum
    batch: int = 32                # answers per optimiser step
    lr: float = 3e-4               # peak learning rate (Adam)
    max_new_tokens: int = 64       # longest answer


@dataclass(frozen=True)
class Measure(Training):
    stage: str = "measure"         # measure, base, sft or best; each has flags of its own
    models: str = "chains"         # checkpoints in --out, "chains,final"
    sums: int = 200                # held-out sums of each length
    k: int = 8                     # answers per sum for majority vote and pass at k
    max_new_tokens: int = 72       # longest answer


# --- 1 what is learned ----------------------------------------------------------------------------


def batch_pages(config, tokenizer, generator):
    """Windows from anywhere in the pages; the mask is all ones."""
    rng = random.Random(f"pages {config.seed}")
    stream = pack(tokenizer, [make_page(rng) for _ in range(config.pages)])
    return [draw_windows(stream, config.batch, 128, generator) for _ in range(config.steps)]


def batch_demonstrations(config, tokenizer, generator):
    """Worked sums of like length; the mask is on the answer."""
    examples = [encode_example(tokenizer, one.text, answer)
                for one, answer in make_worked(config.demonstrations, config.seed)]
    lengths = [len(prompt) + len(response) for prompt, response in examples]
    return [collate([examples[i] for i in rows]) for _ in range(config.epochs)
            for rows in batch_by_length(lengths, config.batch, generator)]


def learn(config, name, batch):
    """Further training: pages (a mask of ones) or demonstrations (a mask on the answer)."""
    device, generator = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    batches = batch(config, tokenizer, generator)
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    steps, learned = Steps(config, name), [tokens for tokens, _ in batches]
    for step in steps.upto(len(batches), learned, model=model, muon=muon, adam=adam):
        tokens, mask = (x.to(device) for x in batches[step])
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * cosine(step / len(batches)))
        set_lr(adam, config.lr * cosine(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)
    found = ask(model, tokenizer, make_sums(300, "valid"), 64)[0]
    steps.end(model, model.config, tokenizer, f"right on {found['right']:.1%} of held-out sums, "
              f"{found['lucky']:.1%} of these by luck", **found)


# --- 2 rejection sampling -------------------------------------------------------------------------


def select(sums, answers, tokenizer, keep, rng):
    """Of k answers to each sum those that are right; or, for the control, as many of all of them,
    drawn at random. -> [(prompt ids, response ids)]"""
    drawn = [(one, ids) for one, some in zip(sums, answers) for ids in some]
    right = [(one, ids) for one, ids in drawn
             if is_answer_right(one, tokenizer.decode(ids), ids[-1] == tokenizer.eos)]
    kept = right if keep == "right" else rng.sample(drawn, len(right))
    return [(encode_prompt(tokenizer, one.text), ids) for one, ids in kept], len(right) / len(drawn)


def imitate_the_best(config):
    device, generator = start(config)
    check(config.keep in ("right", "random"), f"--keep {config.keep}: right or random")
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    sums, watched = make_sums(3000, "train", config.seed), make_sums(100, "valid")
    adam, steps = make_adam(policy.parameters(), config.lr), Steps(config, config.name)
    for round in steps.upto(config.rounds, sums, policy=policy, adam=adam, generator=generator):
        drawn = [sums[i] for i in torch.randint(len(sums), (config.asked,), generator=generator)]
        given = respond(policy, tokenizer, [one.text for one in drawn for _ in range(config.k)],
                        config.max_new_tokens)
        answers = [given[i:i + config.k] for i in range(0, len(given), config.k)]
        kept, share = select(drawn, answers, tokenizer, config.keep,
                             random.Random(f"keep {config.seed} {round}"))
        stats = []
        for rows in batch_by_length([len(x) + len(y) for x, y in kept], config.batch, generator):
            tokens, mask = (x.to(device) for x in collate([kept[i] for i in rows]))
            loss = lm_loss(policy(tokens), tokens, mask)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            adam.step()
            adam.zero_grad()
            stats.append(dict(loss=loss.detach(), norm=norm))
        found = ask(policy, tokenizer, watched, config.max_new_tokens)[0]
        steps.log(round, samples=(round + 1) * len(given), score=share, **found, **mean_of(stats))
    steps.end(policy, policy.config, tokenizer, f"right on {found['right']:.1%} of held-out sums",
              **found)


# --- 3 measures -----------------------------------------------------------------------------------


def ask(model, tokenizer, sums, max_new_tokens, temperature=1.0, k=1):
    """k answers to each sum; training draws the same random numbers with it and without it.
    -> what assess_chains finds, the response ids"""
    generator = torch.Generator(model.lm_head.weight.device).manual_seed(0)
    asked = [one for one in sums for _ in range(k)]
    ids = respond(model, tokenizer, [one.text for one in asked], max_new_tokens, temperature,
                  generator)
    return assess_chains(asked, ids, tokenizer) | dict(length=sum(map(len, ids)) / len(ids)), ids


def measure_votes(sums, answers):
    """answers: k texts a sum. -> the share of sums whose most frequent final number is right, and
    of those with a right one among the k"""
    said = [[read_number(answer) for answer in some] for some in answers]
    due = [str(sum(one.numbers)) for one in sums]
    return dict(majority=sum(some[vote(some)] == d for some, d in zip(said, due)) / len(sums),
                pass_at_k=sum(d in some for some, d in zip(said, due)) / len(sums))


def measure(config):
    device, _ = start(config)
    names, found = [name.strip() for name in config.models.split(",")], {}
    ref, tokenizer = load_gpt(f"{config.out}/chains.pt", device)
    for name in names:
        model, _ = load_gpt(f"{config.out}/{name}.pt", device)
        row = found[name] = {}
        for label, sizes in (("4-6", (4, 5, 6)), ("7", (7,)), ("8", (8,))):
            sums = make_sums(config.sums, "eval", config.seed, sizes)
            row[label], ids = ask(model, tokenizer, sums, config.max_new_tokens)
            row[label]["greedy"] = ask(model, tokenizer, sums, config.max_new_tokens, 0)[0]["right"]
            items = [(encode_prompt(tokenizer, one.text), [y]) for one, y in zip(sums, ids)]
            moved = all_logprobs(model, items, device) - all_logprobs(ref, items, device)
            row[label]["kl"] = moved.mean().item()           # y ~ model: KL(model || SFT)
            many = ask(model, tokenizer, sums, config.max_new_tokens, 1.0, config.k)[1]
            texts = [tokenizer.decode(y) for y in many]
            row[label] |= measure_votes(sums, [texts[i:i + config.k]
                                               for i in range(0, len(texts), config.k)])
        print(name, {key: round(value, 3) for key, value in row["4-6"].items()})
    with write_whole(f"{config.out}/reasoning.json") as file:
        file.write(json.dumps(found, indent=2) + "\n")


def main():
    config = read_flags(__doc__, Finetune, Base, Best, Measure)
    if config.stage == "base":
        learn(config, "chains_base", batch_pages)
    elif config.stage == "sft":
        learn(config, "chains", batch_demonstrations)
    elif config.stage == "best":
        imitate_the_best(config)
    else:
        measure(config)


if __name__ == "__main__":
    run(main)
