"""An AI judge: a language model that reads a rule, a prompt and two answers, and picks one.

    p_ab = P(A) / (P(A) + P(B))      at the verdict token (arXiv 2212.08073, section 4.1)
    p = (p_ab + 1 - p_ba) / 2        mean over both orders (2309.00267, section 2.1)

1 train        The base model learns to complete pages: verdicts, critiques and revisions
               (later/principles.py).
2 test         Pairs of the SFT model's answers, of which one is truly better by a rule: how often
               does the judge pick it, and how often does it only pick the first?

    python -m later.judge          out/base.pt, out/sft.pt -> out/judge.pt, out/results.json

later/constitution.py and later/feedback.py use the judge.
"""

import itertools
import json
import random
from dataclasses import dataclass

import torch
from torch import nn

from data.batches import (batch_by_length, collate, drop_long, encode_example, encode_prompt,
                          apply_in_batches, pack, sample_windows)
from data.files import read_documents, read_prompts
from data.world.labelers import make_labelers
from data.world.utility import breakdown
from generate import respond
from later.principles import CONSTITUTION, HELPFUL, LETTERS, ask_which, make_pages, make_red_team
from model import last_index
from pretrain import lm_loss, measure_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, atomic_write, read_flags
from tools.optimizers import cosine, make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "base"        # checkpoint in --out to start from
    pages: int = 16000             # to train on, for one epoch
    documents: int = 4000          # pretraining text to mix in
    mix_every: int = 10            # batches of pages per batch of documents
    batch: int = 32                # pages per step
    lr: float = 1e-3               # peak learning rate (Adam)
    answers: str = "sft"           # checkpoint in --out whose answers are judged in the test
    prompts: int = 300             # test prompts, and as many of the red team
    max_new_tokens: int = 48       # longest answer in the test


# --- verdicts -------------------------------------------------------------------------------------


def choose(logits, a, b):
    """P(a) / (P(a) + P(b)) for two tokens a and b (2212.08073, section 4.1).  (N, V) -> (N,)"""
    return torch.sigmoid(logits[:, a] - logits[:, b])


def unbiased(p_ab, p_ba):
    """(p_ab + 1 - p_ba) / 2, where both are probabilities that the answer shown first is better
    (2309.00267, section 2.1). A judge that always says "first" gets 1/2.  (N,), (N,) -> (N,)"""
    return (p_ab + 1 - p_ba) / 2


def harden(p):
    """1 above a half, 0 below, a half at a half."""
    return (p > 0.5).float() + 0.5 * (p == 0.5).float()


def same_position(p_ab, p_ba):
    """How often the judge prefers the answer shown first, or the second, in both orders."""
    return ((p_ab > 0.5) == (p_ba > 0.5)).float().mean().item()


def prefer_first(judge, tokenizer, pages, device):
    """Texts of comparisons (token ids) -> P(the first answer is better), (N,); 1/2 for pages that
    are longer than the context."""
    a, b = [tokenizer.encode(letter)[0] for letter in LETTERS]

    def verdicts(tokens, mask):                              # the last token predicts the letter
        hidden = judge.hidden(tokens)[torch.arange(len(tokens)), last_index(mask)]
        return choose(judge.lm_head(hidden).float(), a, b)

    p = torch.full((len(pages),), 0.5)
    fitting = [i for i, page in enumerate(pages) if len(page) <= judge.config.block_size]
    if fitting:
        tokens, mask = collate([([], pages[i]) for i in fitting], device)
        p[fitting] = apply_in_batches(verdicts, tokens, mask).cpu()
    return p


def judge_pairs(judge, tokenizer, pairs, device):
    """[(rule, prompt, a, b)] -> p_ab, p_ba: P(the first is better) with a first and with b first"""
    pages = []
    for rule, prompt, a, b in pairs:
        pages.append(encode_prompt(tokenizer, ask_which(rule, prompt, a, b)))
        pages.append(encode_prompt(tokenizer, ask_which(rule, prompt, b, a)))
    return prefer_first(judge, tokenizer, pages, device).view(-1, 2).unbind(dim=1)


# --- 1 train --------------------------------------------------------------------------------------


def load_pages(n, seed, tokenizer, block_size):
    pages = [encode_example(tokenizer, *page) for page in make_pages(n, seed)]
    return drop_long(pages, block_size, "pages")


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    T = model.config.block_size
    train = load_pages(config.pages, config.seed, tokenizer, T)
    valid = load_pages(1000, "held-out", tokenizer, T)
    text = pack(tokenizer, read_documents(config.documents, config.seed)).to(device)
    batches = []
    for rows in batch_by_length([len(page) + len(y) for page, y in train], config.batch):
        batches.append(collate([train[i] for i in rows], device))
        if len(batches) % (config.mix_every + 1) == config.mix_every:
            batches.append(sample_windows(text, max(1, config.batch // 4), T))
    n_steps = len(batches)

    model.train()
    adam = make_adam(model.parameters(), config.lr)
    run = Run(config, "judge", n_steps, model=model, adam=adam)
    for step in range(run.first_step, n_steps):
        tokens, mask = batches[step]
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, cosine(step / n_steps))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)

    tokens, mask = collate(valid, device)
    run.finish(model, tokenizer, heldout_loss=measure_loss(model.eval(), tokens, mask))
    test(config, model, tokenizer, device)


# --- 2 test ---------------------------------------------------------------------------------------


def test(config, judge, tokenizer, device):
    sft, _ = load_gpt(f"{config.out}/{config.answers}.pt", device)
    ordinary = read_prompts(config.prompts, "valid", config.seed)
    red_team = make_red_team(config.prompts, "valid", config.seed)
    results = {}
    for name, prompts, rules in (("helpful", ordinary, [HELPFUL]),
                                 ("harmless", red_team, CONSTITUTION)):
        pairs = find_pairs(config, sft, tokenizer, prompts, rules)
        if pairs:
            results[name] = test_on(pairs, judge, tokenizer, device, config.seed)
            print(f"{name}: correct on {results[name]['correct']:.1%} of {len(pairs)} pairs, same "
                  f"position after the swap on {results[name]['same_position']:.1%}")
    with atomic_write(f"{config.out}/results.json") as file:
        file.write(json.dumps(results, indent=2) + "\n")


def find_pairs(config, sft, tokenizer, prompts, rules):
    """Pairs of four sampled answers per prompt that truly differ by a random rule.
    -> [(rule, prompt, better, worse)], where an answer is (text, ended)"""
    rng, pairs, texts = random.Random(f"test {config.seed}"), [], []
    for prompt in prompts:
        texts += 4 * [prompt.text]
    samples = iter(respond(sft, tokenizer, texts, config.max_new_tokens))
    for prompt in prompts:
        rule, utilities = rng.choice(rules), {}
        for _ in range(4):
            ids = next(samples)
            answer = tokenizer.decode(ids), ids[-1] == tokenizer.eos
            terms = breakdown(prompt, *answer)
            utilities[answer] = sum(terms[term] for term in rule.terms)
        for a, b in itertools.combinations(sorted(utilities, key=utilities.get, reverse=True), 2):
            if utilities[a] - utilities[b] > 0.01:
                pairs.append((rule, prompt, a, b))
    return pairs


def test_on(pairs, judge, tokenizer, device, seed):
    """-> {name: share of the pairs}; a tie is half correct"""
    rng, labelers = random.Random(f"labelers {seed}"), make_labelers("train")
    # the better answer is `a`: p_ab shows it first, p_ba second
    texts = [(rule, prompt.text, a[0], b[0]) for rule, prompt, a, b in pairs]
    p_ab, p_ba = judge_pairs(judge, tokenizer, texts, device)
    agreeing = 0
    for _, prompt, a, b in pairs:
        agreeing += rng.choice(labelers).rank(prompt, [a, b], rng)[0] == 0
    one_order = torch.cat((p_ab, 1 - p_ba))                  # each order on its own
    return dict(pairs=len(pairs), correct=harden(unbiased(p_ab, p_ba)).mean().item(),
                correct_one_order=harden(one_order).mean().item(),
                same_position=same_position(p_ab, p_ba), labeler=agreeing / len(pairs))


if __name__ == "__main__":
    main()
