"""AI feedback: a reward model fitted to the verdicts of a judge (RLAIF, arXiv 2309.00267, and
RL-CAI, 2212.08073, section 4).

    loss = -E[ p log sigmoid(r_a - r_b) + (1 - p) log sigmoid(r_b - r_a) ]

p is the judge's probability that answer a is better than b (later/judge.py). reward.py has p = 1
for the answer that a labeler prefers; the rest is the same.

    python -m later.feedback                   out/comparisons.jsonl, out/judge.pt, out/sft.pt
                                               -> out/reward.pt, which ppo.py maximises
    python -m later.feedback --constitution    RL-CAI, after later/constitution.py: the judge labels
                                               out/red_team.jsonl by rules of the constitution;
                                               out/comparisons.jsonl keeps the labelers' rankings
"""

import itertools
import random
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from data.batches import batch_comparisons, collate
from data.comparisons import flatten, label_accuracy, read_comparisons, split_by_prompt
from later.fit import fit
from later.judge import harden, judge_pairs, same_position, unbiased
from later.principles import CONSTITUTION, HELPFUL
from reward import RewardModel, pair_indices, score_all
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out to start from
    constitution: bool = False     # judge the red team's prompts only, by the constitution
    labels: str = "soft"           # the judge's p: soft or hard; or people: rankings
    batch: int = 6                 # prompts per step, each with all its pairs
    lr: float = 5e-4               # peak learning rate (Adam)


def soft_preference_loss(score_a, score_b, p):
    """-p log sigmoid(a - b) - (1 - p) log sigmoid(b - a), smallest where a - b = logit p; p = 1 is
    eq. 1 of 2203.02155 (2212.08073, section 4.1; 2309.00267, section 2.2). Mean; three of one
    shape -> ()"""
    assert score_a.shape == score_b.shape == p.shape
    return -(p * F.logsigmoid(score_a - score_b) + (1 - p) * F.logsigmoid(score_b - score_a)).mean()


def label(config, comparisons, partner, device):
    """The judge's p that response i is better than response j, for all i < j of a comparison.
    -> [(C(K,2),)], statistics. The labeler who ranked the responses, best first, has p = 1."""
    judge, tokenizer = load_gpt(f"{config.out}/judge.pt", device, partner)
    rng = random.Random(f"rules {config.seed}")
    questions, counts = [], []
    for comparison in comparisons:      # differs from the paper: one rule per prompt, not per pair
        rule = rng.choice(CONSTITUTION if config.constitution else [HELPFUL])
        prompt = tokenizer.decode(comparison.prompt).removesuffix("\n")
        texts = [tokenizer.decode(response) for response in comparison.responses]
        pairs = list(itertools.combinations(texts, 2))       # the order of pair_indices
        questions += [(rule, prompt, a, b) for a, b in pairs]
        counts.append(len(pairs))
    p_ab, p_ba = judge_pairs(judge, tokenizer, questions, device)
    p = unbiased(p_ab, p_ba)
    stats = dict(agreement=harden(p).mean(), same_position=same_position(p_ab, p_ba))
    if config.labels == "hard":
        p = harden(p)
    return list(p.split(counts)), stats


def labels_of_people(comparisons):
    K = [len(comparison.responses) for comparison in comparisons]
    return [torch.ones(k * (k - 1) // 2) for k in K]


def load_labels(config, gpt, tokenizer, device):
    """-> train, valid (lists of Comparison), p of all pairs of train, statistics of the judge"""
    name = "red_team" if config.constitution else "comparisons"
    block_size = gpt.config.block_size
    train, valid = read_comparisons(f"{config.out}/{name}.jsonl", tokenizer, block_size)
    labels, stats = labels_of_people(train), {}
    if config.labels != "people":
        labels, stats = label(config, train, (gpt, tokenizer), device)
    if config.constitution:                                  # helpfulness is labelled by people
        helpful_train, helpful_valid = read_comparisons(f"{config.out}/comparisons.jsonl",
                                                        tokenizer, block_size)
        train, valid = train + helpful_train, valid + helpful_valid
        labels += labels_of_people(helpful_train)
    return train, valid, labels, stats


@torch.no_grad()
def standardise(model, scores):
    """Changes the head so that these scores have mean 0 and variance 1: labels near a half ask for
    small differences, and PPO's beta is in units of the score."""
    model.head.bias -= scores.mean()
    model.head.weight /= scores.std()
    model.head.bias /= scores.std()


def main():
    config = read_flags(__doc__, Config)
    check(config.labels in ("soft", "hard", "people"),
          f"--labels {config.labels} must be soft, hard or people")
    device = setup(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    train, valid, labels, stats = load_labels(config, gpt, tokenizer, device)
    model = RewardModel(gpt).to(device)
    batches = batch_comparisons(train, config.batch)

    def loss_fn(step):
        comparisons = [train[i] for i in batches[step]]
        tokens, mask = collate(flatten(comparisons), device)                     # (B K, T)
        scores = model.score_responses(tokens, mask).view(len(comparisons), -1)            # (B, K)
        a, b = pair_indices(scores.shape[1])
        p = torch.stack([labels[i] for i in batches[step]]).to(device)           # (B, C(K,2))
        return soft_preference_loss(scores[:, a], scores[:, b], p)

    optimizers = [make_adam(model.parameters(), config.lr)]
    run = fit(config, "reward", model, optimizers, len(batches), loss_fn)
    standardise(model, score_all(model, flatten(train), device))
    scores = split_by_prompt(score_all(model, flatten(valid), device), valid)
    run.finish(model, tokenizer, accuracy=label_accuracy(scores), **stats)      # of people's labels


if __name__ == "__main__":
    main()
