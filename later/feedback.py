"""AI feedback in place of labels: RL-CAI (arXiv 2212.08073, section 4) and RLAIF (2309.00267).

    loss = -E[ p log sigmoid(r_a - r_b) + (1 - p) log sigmoid(r_b - r_a) ]

p is the judge's (later/judge.py); the reward model's loss is all that differs from reward.py.

--stage label   out/comparisons.jsonl, ranked by judge.pt instead     -> out/comparisons.jsonl
--stage fit     a reward model on soft, hard or clamped labels        -> out/reward.pt

    python -m later.feedback --stage label

`label` ranks by HELPFUL, all prompts: the recipe's reward.py, dpo.py and ppo.py go on from there
(RLAIF). With --constitution it ranks the red team's prompts alone, by a rule drawn for each
(RL-CAI); helpfulness stays with labelers, as in the paper.
"""

import itertools
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch
from torch import nn
from torch.nn import functional as F

from data import comparisons
from data.batches import batch_prompts, collate, encode_prompt
from data.comparisons import rank_values
from data.files import read_records
from data.world.measures import count_wins
from later.judge import compare_all, unbiased
from later.principles import CONSTITUTION, HELPFUL
from model import load_gpt
from reward import RewardModel, measure_accuracy, score, score_all
from tools.device import start
from tools.flags import Training, check, read_flags, run, write_whole
from tools.optimizers import cosine, make_muon_and_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Label:
    stage: str = "label"           # label or fit; each has flags of its own
    out: str = "out"               # folder of judge.pt, and of what is written
    seed: int = 0                  # of the rules that are drawn
    device: str = "auto"           # cpu, cuda, mps or auto
    precision: str = "auto"        # of the blocks: float32, bfloat16 or auto
    comparisons: str = ""          # another file to read than comparisons.jsonl in --out
    constitution: bool = False     # by its rules, and the red team's prompts alone


@dataclass(frozen=True)
class Fit(Training):
    stage: str = "fit"             # label or fit; each has flags of its own
    begin: str = "sft"             # checkpoint in --out that becomes the reward model
    labels: str = "soft"           # what is made of the judge's p: soft, hard, clamped
    batch: int = 6                 # prompts per step, each with all its pairs
    lr: float = 5e-4               # peak learning rate (Adam)
    muon_lr: float = 0.003         # peak learning rate of the blocks' matrices (Muon)


# --- loss -----------------------------------------------------------------------------------------


def soft_preference_loss(score_a, score_b, p):
    """-p log sigmoid(a - b) - (1 - p) log sigmoid(b - a): pulls a - b to logit p; p = 1 is eq. 1 of
    2203.02155 (2212.08073, section 4.1; 2309.00267, section 2.2). Three (N,) -> ()"""
    assert score_a.shape == score_b.shape == p.shape
    return -(p * F.logsigmoid(score_a - score_b) + (1 - p) * F.logsigmoid(score_b - score_a)).mean()


def harden(p):
    """1 above a half, 0 below, a half at a half."""
    return (p > 0.5).float() + 0.5 * (p == 0.5).float()


def clamp(p):
    """To [0.4, 0.6] (2212.08073, section 4.2): a - b is pulled no further than 0.405."""
    return p.clamp(0.4, 0.6)


LABELS = dict(soft=torch.clone, hard=harden, clamped=clamp)


# --- label ----------------------------------------------------------------------------------------


def label(config):
    """Each pair of a prompt's answers is judged in both orders; answers are ranked by the sum of
    their p; the p of all pairs, in the order of combinations, stand beside the ranking."""
    device, _ = start(config)
    judge, tokenizer = load_gpt(f"{config.out}/judge.pt", device)
    path = config.comparisons or f"{config.out}/comparisons.jsonl"
    check(Path(path).is_file(), f"{path} not found; run `python compare.py` first")
    records, rng = [r for _, r in read_records(path)], random.Random(f"rules {config.seed}")
    chosen = [r for r in records if r.get("red") or not config.constitution]
    check(chosen, f"{path} holds no prompt of the red team; `python -m later.constitution --stage "
                  "rank` makes such a file")
    before, began = [rank_values(r["ranking"]) for r in chosen], time.time()
    rules = [rng.choice(CONSTITUTION) if config.constitution else HELPFUL for _ in chosen]
    found = rank_all(judge, tokenizer, chosen, rules, device)
    seconds = time.time() - began
    comparisons.write(f"{config.out}/comparisons.jsonl", records)
    found |= dict(step=-1, seconds=seconds, milliseconds_per_label=1000 * seconds / found["labels"],
                  agreement=measure_agreement(chosen, before))
    with write_whole(Path(config.out) / "metrics" / "label.jsonl") as file:
        file.write(json.dumps(found) + "\n")
    print(f"{config.out}/comparisons.jsonl: {found['labels']:,} labels by the judge, who agrees "
          f"with the labels before on {found['agreement']:.1%}, in {seconds:.0f} s")


def rank_all(judge, tokenizer, records, rules, device):
    """Puts the judge's ranking and its p into the records. -> {name: value}"""
    asked, counts = [], []
    for r, rule in zip(records, rules):
        pairs = list(itertools.combinations(r["responses"], 2))
        asked += [(rule, r["prompt"], a, b) for a, b in pairs]
        counts.append(len(pairs))
    p_ab, p_ba, too_long = compare_all(judge, tokenizer, asked, device)
    for r, p in zip(records, unbiased(p_ab, p_ba).split(counts)):
        worth = [0.0] * len(r["responses"])
        for (i, j), share in zip(itertools.combinations(range(len(worth)), 2), p.tolist()):
            worth[i] += share
            worth[j] += 1 - share
        ranking = sorted(range(len(worth)), key=lambda i: -worth[i])
        r |= dict(p=p.tolist(), labeler="judge", ranking=ranking)
    return dict(labels=len(asked), too_long=too_long / (2 * len(asked)),
                same_position=((p_ab > 0.5) == (p_ba > 0.5)).float().mean().item())


def measure_agreement(records, before):
    """The share of pairs on which the judge's p is on the side of the ranking before; a half counts
    half."""
    agreed = []
    for r, value in zip(records, before):
        for (i, j), p in zip(itertools.combinations(range(len(value)), 2), r["p"]):
            agreed += count_wins([p if value[i] > value[j] else 1 - p], [0.5])
    return sum(agreed) / len(agreed)


# --- fit ------------------------------------------------------------------------------------------


def read_labels(path, tokenizer, block_size, change):
    """-> {split: [(prompt ids, [response ids], p of each pair)]}; p is that of the judge, changed,
    or 1 and 0 as labelers ranked."""
    check(Path(path).is_file(), f"{path} not found; make it with compare.py or later.constitution")
    found = dict(train=[], valid=[])
    for place, r in read_records(path):
        check("ids" in r and "ranking" in r, f'{place}: "ids" and "ranking" are needed')
        prompt, value = encode_prompt(tokenizer, r["prompt"]), rank_values(r["ranking"])
        pairs = itertools.combinations(range(len(value)), 2)
        p = (change(torch.tensor(r["p"])) if "p" in r else
             torch.tensor([float(value[i] > value[j]) for i, j in pairs]))
        if len(prompt) + max(map(len, r["ids"])) <= block_size:
            found[r.get("split", "train")].append((prompt, r["ids"], p))
    check(found["train"], f"{path} holds no comparisons to learn from")
    return found


def standardise(model, scores):
    """Shifts and stretches the reward model so that these scores have mean 0 and variance 1: labels
    clamped to 0.6 ask for differences 8.6 times smaller than 0.97, and beta would have to shrink
    with them."""
    mean, spread = scores.mean(), scores.std()
    with torch.no_grad():
        for x in (model.head.weight, model.head.bias, model.likelihood):
            x /= spread
        model.head.bias -= mean / spread


def fit(config):
    """reward.py with soft labels: one idea differs, the loss."""
    check(config.labels in LABELS, f"--labels {config.labels}: {', '.join(LABELS)}")
    device, generator = start(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    found = read_labels(f"{config.out}/comparisons.jsonl", tokenizer, gpt.config.block_size,
                        LABELS[config.labels])
    train = found["train"]
    model = RewardModel(gpt, 0.3).to(device)
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    batches = batch_prompts([(prompt, ids) for prompt, ids, _ in train], config.batch, generator)

    steps = Steps(config, "reward")
    for step in steps.upto(len(batches), train, model=model, muon=muon, adam=adam):
        rows = [train[i] for i in batches[step]]
        tokens, mask = collate([(prompt, y) for prompt, ids, _ in rows for y in ids])
        scores = score(model(tokens.to(device)), mask.to(device)).view(len(rows), -1)     # (B, K)
        first, second = torch.combinations(torch.arange(scores.shape[1]), 2).unbind(dim=1)
        p = torch.stack([p for *_, p in rows]).to(device)                    # (B, pairs)
        loss = soft_preference_loss(scores[:, first], scores[:, second], p)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * cosine(step / len(batches)))
        set_lr(adam, config.lr * cosine(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)

    some = [(prompt, y) for prompt, ids, _ in train[:500] for y in ids]
    standardise(model, score_all(model, some, device).to(device))
    items = comparisons.read(f"{config.out}/comparisons.jsonl", tokenizer, gpt.config.block_size)
    accuracy = measure_accuracy(model, items["valid"], device)
    steps.end(model, gpt.config, tokenizer, f"right on {accuracy['accuracy_labels']:.1%} of "
              "held-out labels", **accuracy)


# --- main -----------------------------------------------------------------------------------------


def main():
    config = read_flags(__doc__, Label, Fit)
    dict(label=label, fit=fit)[config.stage](config)


if __name__ == "__main__":
    run(main)
