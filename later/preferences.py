"""Preference losses after DPO: the training loop of dpo.py with nine losses to choose from.

pi and ref are log-probs of a response under the policy and the frozen reference, sums over its n
tokens; w is the chosen response of a pair, l the rejected one. In the equations below

    h = (pi_w - ref_w) - (pi_l - ref_l)       the margin, without beta
    m = pi / n                                the mean log-prob per token

    python -m later.preferences --loss ipo        out/sft.pt, out/comparisons.jsonl -> out/ipo.pt
    python -m later.preferences --loss orpo --init-from base --lr 1e-3           ... -> out/orpo.pt
    python -m later.preferences --loss kto --feedback FILE        see kto.py    ... -> out/kto.pt
"""

import copy
import itertools
import random
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from data.batches import batch_comparisons, collate
from data.comparisons import (Comparison, flatten, label_accuracy, read_comparisons,
                              split_by_prompt)
from dpo import dpo_loss, logprob_all, lr_factor, sequence_logprob
from later.kto import balance, kto_batch_loss, read_feedback, split_halves
from later.measure import log_ratio_all
from reward import pair_indices
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run

LOSSES = ("dpo", "ipo", "cdpo", "rdpo", "length", "nll", "simpo", "orpo", "kto")


@dataclass(frozen=True)
class Config(TrainingFlags):
    loss: str = "ipo"              # dpo ipo cdpo rdpo length nll simpo orpo kto
    init_from: str = "sft"         # checkpoint in --out: policy and reference
    comparisons: str = ""          # a file; default: comparisons.jsonl in --out
    feedback: str = ""             # a file of single answers for kto; default: halves of rankings
    pairs: bool = False            # train on two pairs of each ranking instead of on all
    flip: float = 0.0              # fraction of these pairs whose label is flipped
    prompts: int = 4000            # train on the first rankings, or pairs, only
    # the papers' beta of 0.1 is for models of 7B
    beta: float = 0.3              # KL penalty; a good value for simpo is 2.5
    tau: float = 0.2               # of ipo, whose target is h = 1 / (2 tau)
    eps: float = 0.1               # of cdpo and rdpo: fraction of wrong labels
    gamma: float = 1.0             # of simpo: target margin
    lam: float = 0.1               # of orpo: weight of the odds ratio
    alpha: float = 1.0             # of nll: weight of the likelihood
    token_price: float = 0.05      # of length, alpha in its paper
    epochs: int = 2                # passes over the comparisons
    batch: int = 44                # responses per step, all of a prompt together
    lr: float = 5e-5               # peak learning rate (Adam)


# --- with a reference, from h (N,) -> () ----------------------------------------------------------
# dpo is -log sigmoid(beta h), in dpo.py. nll is DPO + alpha mean(-m_w) (iterative RPO, arXiv
# 2404.19733, eq. 1).


def ipo_loss(h, tau):
    """(h - 1 / (2 tau))^2 (IPO, arXiv 2310.12036, eq. 17). A larger margin than 1 / (2 tau) is
    pulled back. h is of sums, as in the paper."""
    return ((h - 1 / (2 * tau)) ** 2).mean()


def cdpo_loss(h, beta, eps):
    """-(1 - eps) log sigmoid(beta h) - eps log sigmoid(-beta h) (Mitchell 2023, eq. 3), which is
    smallest where beta h = log((1 - eps) / eps)."""
    return (-(1 - eps) * F.logsigmoid(beta * h) - eps * F.logsigmoid(-beta * h)).mean()


def rdpo_loss(h, beta, eps):
    """[-(1 - eps) log sigmoid(beta h) + eps log sigmoid(-beta h)] / (1 - 2 eps) (arXiv 2403.00409).
    If a fraction eps of the labels is flipped, its expectation is DPO's loss on the true labels. It
    has no lower bound."""
    loss = -(1 - eps) * F.logsigmoid(beta * h) + eps * F.logsigmoid(-beta * h)
    return loss.mean() / (1 - 2 * eps)


def length_loss(h, n_w, n_l, beta, alpha):
    """-log sigmoid(beta h + alpha (n_w - n_l)) (R-DPO, arXiv 2403.19159). The length of a longer
    winner explains part of its label, so its gradient is smaller."""
    assert h.shape == n_w.shape == n_l.shape
    return -F.logsigmoid(beta * h + alpha * (n_w - n_l)).mean()


# --- without a reference --------------------------------------------------------------------------


def simpo_loss(pi_w, pi_l, n_w, n_l, beta, gamma):
    """-log sigmoid(beta (m_w - m_l) - gamma) (SimPO, arXiv 2405.14734, eq. 6).
    Four (N,) -> loss, stats. gamma is the paper's; some libraries have a flag for gamma / beta."""
    assert pi_w.shape == pi_l.shape == n_w.shape == n_l.shape
    margin = beta * (pi_w / n_w - pi_l / n_l)
    return -F.logsigmoid(margin - gamma).mean(), describe(margin)


def log_odds(m):
    """log p / (1 - p) of p = e^m, m < 0. Its value and gradient stay finite as m approaches 0."""
    m = m.clamp(max=-1e-6)
    return m - torch.log(-torch.expm1(m))


def odds_ratio_loss(m_w, m_l):
    """-log sigmoid(log_odds(m_w) - log_odds(m_l)) (ORPO, arXiv 2403.07691, eq. 7). orpo is
    mean(-m_w) + lam times this (eq. 6).  Two (N,) -> ()"""
    assert m_w.shape == m_l.shape
    return -F.logsigmoid(log_odds(m_w) - log_odds(m_l)).mean()


def describe(margin):
    """For the log."""
    margin = margin.detach()
    return dict(accuracy=(margin > 0).float().mean(), margin=margin.mean())


# --- main -----------------------------------------------------------------------------------------


def comparison_loss(config, pi, ref, n):
    """The mean over all pairs of all prompts of a batch. pi, ref: log-probs of the responses under
    policy and reference, n: their tokens; (B, K), best first -> loss, stats"""
    w, l = pair_indices(pi.shape[1])
    pi_w, pi_l = pi[:, w].flatten(), pi[:, l].flatten()                          # (B C(K,2),)
    ref_w, ref_l = ref[:, w].flatten(), ref[:, l].flatten()
    n_w, n_l = n[:, w].flatten(), n[:, l].flatten()
    h = (pi_w - ref_w) - (pi_l - ref_l)
    # of the best responses only: over all pairs, it would imitate those better than the worst
    nll = -(pi[:, 0] / n[:, 0]).mean()
    beta = config.beta
    match config.loss:
        case "dpo":    loss, _ = dpo_loss(pi_w, pi_l, ref_w, ref_l, beta)
        case "ipo":    loss = ipo_loss(h, config.tau)
        case "cdpo":   loss = cdpo_loss(h, beta, config.eps)
        case "rdpo":   loss = rdpo_loss(h, beta, config.eps)
        case "length": loss = length_loss(h, n_w, n_l, beta, config.token_price)
        case "nll":    loss = dpo_loss(pi_w, pi_l, ref_w, ref_l, beta)[0] + config.alpha * nll
        case "simpo":  loss, _ = simpo_loss(pi_w, pi_l, n_w, n_l, beta, config.gamma)
        case "orpo":   loss = nll + config.lam * odds_ratio_loss(pi_w / n_w, pi_l / n_l)
    with torch.no_grad():
        chosen, rejected = (pi_w - ref_w).mean(), (pi_l - ref_l).mean()
    return loss, describe(h) | dict(nll=nll.detach(), chosen=chosen, rejected=rejected)


def draw_pairs(comparisons, flip, seed):
    """Two pairs of each ranking, so that every label is flipped independently. -> [Comparison]"""
    rng, drawn = random.Random(f"pairs {seed}"), []
    for prompt, responses in comparisons:
        pairs = list(itertools.combinations(responses, 2))
        for chosen, rejected in rng.sample(pairs, min(2, len(pairs))):
            if rng.random() < flip:
                chosen, rejected = rejected, chosen
            drawn.append(Comparison(prompt, [chosen, rejected]))
    return drawn


def load_training_data(config, tokenizer, block_size):
    """-> train (comparisons, or feedback for KTO), held-out comparisons"""
    path = config.comparisons or f"{config.out}/comparisons.jsonl"
    train, valid = read_comparisons(path, tokenizer, block_size)
    if config.pairs:
        train = draw_pairs(train, config.flip, config.seed)
    if config.feedback:
        train = read_feedback(config.feedback, tokenizer, block_size)
    elif config.loss == "kto":
        train = split_halves(train)
    return train[:config.prompts], valid[:100]


def main():
    config = read_flags(__doc__, Config)
    check(config.loss in LOSSES, f"--loss {config.loss}: must be one of {' '.join(LOSSES)}")
    check(config.loss == "kto" or not config.feedback, "--feedback is for --loss kto")
    check(config.tau > 0, "--tau must be positive")
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    ref = copy.deepcopy(model).requires_grad_(False)
    train, valid = load_training_data(config, tokenizer, model.config.block_size)
    train_ref = split_by_prompt(logprob_all(ref, flatten(train), device), train)

    adam = make_adam(model.parameters(), config.lr)
    batches = []                                    # of prompts with the same number of responses
    for _ in range(config.epochs):
        batches += batch_comparisons(train, config.batch)
    n_steps = len(batches)

    run = Run(config, config.loss, n_steps, model=model, adam=adam)
    for step in range(run.first_step, n_steps):
        batch = [train[i] for i in batches[step]]
        tokens, mask = collate(flatten(batch), device)                           # (B K, T)
        pi = sequence_logprob(model, tokens, mask).view(len(batch), -1)          # (B, K)
        pi_ref = torch.stack([train_ref[i] for i in batches[step]])              # (B, K)
        if config.loss == "kto":
            loss, stats = kto_batch_loss(config, model, ref, batch, pi, pi_ref, balance(train))
        else:
            n = mask[:, 1:].sum(dim=1).view(len(batch), -1)                      # (B, K)
            loss, stats = comparison_loss(config, pi, pi_ref, n)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, lr_factor(step, n_steps))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm, **stats)
        if step % 100 == 99:
            run.save(step)

    log_ratios = split_by_prompt(log_ratio_all(model, ref, flatten(valid), device), valid)
    run.finish(model, tokenizer, heldout_accuracy=label_accuracy(log_ratios))


if __name__ == "__main__":
    main()
