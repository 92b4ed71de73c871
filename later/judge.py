"""AI feedback: a language model reads a rule and two answers, and says which is better.

    p = P(A) / (P(A) + P(B)),   mean of both orders      (arXiv 2212.08073, 2309.00267)

--stage read    base.pt reads pages of verdicts, critiques, revisions    -> out/judge.pt
--stage test    is the judge right? by rule, kind, position              -> out/results.json

    python -m later.judge --stage read

The pages are made here for this purpose (later/principles.py): 16,000, of which 11,000 hold a
verdict by somebody, and the judge learns what stands on their last line. What it is good for:
later/feedback.py, later/constitution.py.
"""

import itertools
import json
import random
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch import nn

from data.batches import (batch_by_length, collate, draw_windows, encode_example, encode_prompt,
                          keep_fitting, pack)
from data.files import read_documents, read_prompts
from data.world.labelers import make_labelers
from data.world.measures import group_by_kind
from data.world.utility import breakdown
from later.principles import CONSTITUTION, HELPFUL, LETTERS, ask_which, make_pages, make_red_team
from model import load_gpt, respond
from sft import lm_loss, measure_loss
from tools.device import start
from tools.flags import Training, check, check_ranges, read_flags, run, write_whole
from tools.optimizers import cosine, make_muon_and_adam, set_lr
from tools.steps import Steps

# --- flags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read(Training):
    stage: str = "read"            # read or test; each has flags of its own
    begin: str = "base"            # checkpoint in --out to begin with
    pages: int = 16000             # to read, each once
    documents: int = 4000          # of which pretraining batches are mixed in
    mix: float = 0.1               # pretraining batches per batch of pages
    batch: int = 32                # pages per step
    lr: float = 1e-3               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate (Muon)


@dataclass(frozen=True)
class Test:
    stage: str = "test"            # read or test; each has flags of its own
    out: str = "out"               # folder of checkpoints
    seed: int = 0                  # of prompts and sampling
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16 or auto
    answers: str = "sft"           # checkpoint in --out that answers
    prompts: int = 300             # held-out prompts, and as many of the red team
    max_new_tokens: int = 48       # longest answer


# --- what it says ---------------------------------------------------------------------------------


def choose(logits, a, b):
    """P(a) / (P(a) + P(b)) of two tokens: what the judge says where a letter is due (2212.08073,
    section 4.1). (N, V), ids -> (N,)"""
    return torch.sigmoid(logits[:, a] - logits[:, b])


def unbiased(p_ab, p_ba):
    """(p_ab + 1 - p_ba) / 2: probabilities that the answer shown first is better, in both orders
    (2309.00267, section 2.1). A judge that always says "first" says 1/2. (N,), (N,) -> (N,)"""
    return (p_ab + 1 - p_ba) / 2


# --- ask ------------------------------------------------------------------------------------------


@torch.no_grad()
def ask(model, tokenizer, pages, device):
    """Pages as ids, each up to where a letter is due -> (N,) P(first is better); like lengths share
    a batch. Of a page that does not fit the context, a half."""
    a, b = (tokenizer.encode(letter)[0] for letter in LETTERS)
    lengths = torch.tensor([len(page) for page in pages])
    said = torch.full((len(pages),), 0.5)
    fit = (lengths <= model.config.block_size).nonzero().squeeze(1)
    for part in lengths[fit].argsort(stable=True).split(128) if len(fit) else ():
        rows = fit[part]
        tokens, _ = collate([(pages[i], []) for i in rows])
        last = model.hidden(tokens.to(device))[torch.arange(len(rows)), lengths[rows] - 1]
        said[rows] = choose(model.lm_head(last).float(), a, b).cpu()
    return said


def compare_all(model, tokenizer, asked, device):
    """asked: [(rule, prompt, a, b)] -> p_ab, p_ba, how many pages did not fit"""
    pages = [encode_prompt(tokenizer, ask_which(*one)) for one in asked]
    pages += [encode_prompt(tokenizer, ask_which(rule, x, b, a)) for rule, x, a, b in asked]
    said = ask(model, tokenizer, pages, device)
    return *said.chunk(2), sum(len(page) > model.config.block_size for page in pages)


# --- read -----------------------------------------------------------------------------------------


def prepare(config, tokenizer, T, generator):
    """Pages of like length, and for every tenth batch of them a batch of documents of about as many
    tokens. -> batches, held-out pages"""
    pages, heldout = (keep_fitting([encode_example(tokenizer, *page) for page in made], T, "pages")
                      for made in (make_pages(config.pages, config.seed),
                                   make_pages(1000, "held-out")))
    stream = pack(tokenizer, read_documents(config.documents, config.seed))
    batches = []
    for rows in batch_by_length([len(q) + len(y) for q, y in pages], config.batch, generator):
        batches.append(collate([pages[i] for i in rows]))
        if torch.rand((), generator=generator) < config.mix:
            batches.append(draw_windows(stream, max(1, config.batch // 4), T, generator))
    return batches, heldout


def read(config):
    """The loop of sft.py: base.pt goes on predicting, here what stands on a page's last line."""
    check_ranges(config, share="mix")
    device, generator = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    batches, heldout = prepare(config, tokenizer, model.config.block_size, generator)

    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    model.train()
    steps, learned = Steps(config, "judge"), [tokens for tokens, _ in batches]
    for step in steps.upto(len(batches), learned, model=model, muon=muon, adam=adam):
        tokens, mask = (x.to(device) for x in batches[step])
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * cosine(step / len(batches)))
        set_lr(adam, config.lr * cosine(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)

    loss = measure_loss(model.eval(), [collate(heldout)], device)
    accuracy = measure_verdicts(model, tokenizer, heldout, device)
    steps.end(model, model.config, tokenizer, f"held-out loss {loss:.3f}, right on {accuracy:.1%} "
              "of held-out verdicts", heldout_loss=loss, accuracy=accuracy)


def measure_verdicts(model, tokenizer, pages, device):
    """How often the judge says the letter that stands on a page of a verdict."""
    a, b = (tokenizer.encode(letter) + [tokenizer.eos] for letter in LETTERS)
    pages = [(page, y == a) for page, y in pages if y in (a, b)]
    said = ask(model, tokenizer, [page for page, _ in pages], device).tolist()
    return sum((p > 0.5) == is_a for p, (_, is_a) in zip(said, pages)) / max(1, len(pages))


# --- test -----------------------------------------------------------------------------------------


def test(config):
    """The first table, before any training on labels: pairs of a policy's answers that truly differ
    by what a rule speaks about."""
    device, _ = start(config)
    judge, tokenizer = load_gpt(f"{config.out}/judge.pt", device)
    policy, its = load_gpt(f"{config.out}/{config.answers}.pt", device)
    rng, found = random.Random(f"test {config.seed}"), {}
    for name, prompts, rules in (
            ("helpful", read_prompts(config.prompts, "valid", config.seed), [HELPFUL]),
            ("harmless", make_red_team(config.prompts, "valid", config.seed), CONSTITUTION)):
        drawn = respond(policy, its, [p.text for p in prompts for _ in range(4)],
                        config.max_new_tokens)
        rows, asked = [], []
        for i, prompt in enumerate(prompts):
            answers = dict.fromkeys((its.decode(y), y[-1] == its.eos)
                                    for y in drawn[4 * i:4 * i + 4])
            rule = rng.choice(rules)
            for a, b in itertools.combinations(answers, 2):
                true = [sum(breakdown(prompt, *y)[t] for t in rule.terms) for y in (a, b)]
                if abs(true[0] - true[1]) > 0.01:
                    rows.append((prompt, rule, a, b, true[0] > true[1]))
                    asked.append((rule, prompt.text, a[0], b[0]))
        if rows:
            found[name] = describe(rows, *compare_all(judge, tokenizer, asked, device), rng)
    check(found, f"--prompts {config.prompts}: no two answers differ by a rule; give it more")
    size = judge.config
    write_results(config, found | dict(size=f"{size.n_layer} x {size.n_embd}"))
    print(f"{config.out}/results.json: the judge, {size.n_layer} x {size.n_embd}, is right on "
          + ", ".join(f"{row['right']:.1%} of {row['pairs']} {name} pairs (same position after the "
                      f"swap {row['same_position']:.0%})" for name, row in found.items()))


def describe(rows, p_ab, p_ba, too_long, rng):
    """rows: [(prompt, rule, a, b, whether a is better)]. -> {name: share}"""
    sign = torch.tensor([1.0 if row[-1] else -1.0 for row in rows])
    right = 0.5 + 0.5 * (sign * (unbiased(p_ab, p_ba) - 0.5)).sign()          # a tie counts half
    once = 0.5 + 0.5 * (sign * (p_ab - 0.5)).sign()
    labelers = make_labelers("train")
    person = [(rng.choice(labelers).rank(p, [a, b], rng)[0] == 0) == better
              for p, _, a, b, better in rows]
    groups = group_by_kind([p for p, *_ in rows], right.tolist())
    return dict(pairs=len(rows), right=right.mean().item(), right_one_order=once.mean().item(),
                same_position=((p_ab > 0.5) == (p_ba > 0.5)).float().mean().item(),
                first=p_ab.mean().item(), labeler=sum(person) / len(rows),
                too_long=too_long / (2 * len(rows)),
                right_by_kind={kind: sum(v) / len(v) for kind, v in groups.items()})


def write_results(config, found):
    with write_whole(f"{config.out}/results.json") as file:
        file.write(json.dumps(found, indent=2, allow_nan=False) + "\n")


# --- main -----------------------------------------------------------------------------------------


def main():
    config = read_flags(__doc__, Read, Test)
    dict(read=read, test=test)[config.stage](config)


if __name__ == "__main__":
    run(main)
