"""An AI judge: a language model that reads a rule, a prompt and two answers, and picks one.

    p_ab = P(A) / (P(A) + P(B))      at the verdict token (arXiv 2212.08073, section 4.1)
    p = (p_ab + 1 - p_ba) / 2        mean over both orders (2309.00267, section 2.1)

1 train        The base model learns to complete pages: verdicts, critiques and revisions
               (later/principles.py).
2 test         Pairs of held-out answers of which one is truly better: how often does the judge pick
               it, and how often does it only pick the first, or the second?

    python -m later.judge          out/base.pt, out/comparisons.jsonl -> out/judge.pt, judge.json

later/constitution.py and later/feedback.py use the judge.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from data.batches import apply_in_batches, collate, encode_prompt, pack, sample_windows
from data.files import read_documents
from data.records import read_usable
from later.fit import imitate, make_batches
from later.principles import HELPFUL, LETTERS, ask_which, make_pages
from model import last_index
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, atomic_write, check, read_flags
from tools.optimizers import make_adam


@dataclass(frozen=True)
class Config(TrainingFlags):
    pages: int = 16000             # to train on, for one epoch
    documents: int = 4000          # pretraining text to mix in
    mix_every: int = 10            # batches of pages per batch of documents
    batch: int = 32                # pages per step
    lr: float = 1e-3               # peak learning rate (Adam)


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


def read_pairs(config):
    """Pairs of the held-out comparisons, the better answer first. -> questions, whether a second
    labeler agrees"""
    path, questions, agreeing = f"{config.out}/comparisons.jsonl", [], []
    check(Path(path).is_file(), f"{path} not found; run `python compare.py` first")
    for record in read_usable(path, dict):
        if "utilities" in record:
            # the first response is a demonstration
            texts, ranking = record["responses"], record["second_ranking"]
            for i, j in itertools.permutations(range(1, len(texts)), 2):
                if record["utilities"][i] > record["utilities"][j] + 0.01:
                    questions.append((HELPFUL, record["prompt"], texts[i], texts[j]))
                    agreeing.append(ranking.index(i) < ranking.index(j))
    check(questions, f"{path} has no held-out comparisons of the small world")
    return questions, agreeing


def test(judge, tokenizer, questions, agreeing, device):
    """-> {name: fraction of the pairs}; a tie is half correct"""
    p_ab, p_ba = judge_pairs(judge, tokenizer, questions, device)    # the better answer is a
    return dict(correct=harden(unbiased(p_ab, p_ba)).mean().item(),
                same_position=same_position(p_ab, p_ba), labeler=sum(agreeing) / len(agreeing))


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/base.pt", device)
    questions, agreeing = read_pairs(config)
    T = model.config.block_size
    text = pack(tokenizer, read_documents(config.documents, config.seed)).to(device)
    batches, pages = [], make_pages(config.pages, config.seed)
    for i, batch in enumerate(make_batches(config, tokenizer, pages, T, device)):
        batches.append(batch)
        if i % config.mix_every == config.mix_every - 1:
            batches.append(sample_windows(text, max(1, config.batch // 4), T))
    optimizers = [make_adam(model.parameters(), config.lr)]
    imitate(config, "judge", model, tokenizer, optimizers, batches)
    figures = test(model.eval(), tokenizer, questions, agreeing, device)
    with atomic_write(f"{config.out}/judge.json") as file:
        file.write(json.dumps(dict(judge=figures), indent=2) + "\n")
    print(", ".join(f"{name} {value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
