"""After DPO: eleven losses on the same preferences, and what each of them pushes.

A pair gives sums of log-probs, pi of the policy and ref of the frozen reference, of the better (w)
and of the worse answer (l). c = pi_w - ref_w and r = pi_l - ref_l say how far each has moved,
h = c - r how far they have moved apart; m = pi / n is a mean log-prob per token. The signal is the
label. The tether is what stops h: the reference for most, the length or the likelihood of the best
answer for those without one.

    python -m later.preferences --loss simpo    out/sft.pt, out/comparisons.jsonl -> out/simpo.pt
    python -m later.preferences --loss orpo --begin base --lr 1e-3              ... -> out/orpo.pt

--loss dpo is dpo.py. --comparisons takes any file of preferences (data/README.md), --thumbs single
answers with a thumb up or down. Flags of every stage: --out --seed --device --precision --resume.
"""

import copy
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch.nn import functional as F

from data import comparisons
from data.batches import batch_prompts, collate
from data.files import read_watched
from dpo import all_logprobs, dpo_loss, flatten, pairs, sequence_logprob
from later.knobs import choose_knobs
from later.labels import mismatch, read_thumbs, split_halves
from later.watch import describe_end, measure_drift, measure_heldout, watch
from model import load_gpt
from tools.device import start
from tools.flags import Training, read_flags, run
from tools.optimizers import make_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Config(Training):
    loss: str = "dpo"              # dpo ipo cdpo rdpo hinge norm length nll simpo orpo kto
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    comparisons: str = ""          # another file than comparisons.jsonl in --out
    thumbs: str = ""               # of kto: a file of thumbs in place of halves of the rankings
    prompts: int = 0               # of the rankings that many are learned from; 0: all
    beta: float = -1.0             # strength of the tether; -1 here and below: as in later/knobs.py
    tau: float = -1.0              # of ipo: it wants h = 1 / (2 tau)
    eps: float = -1.0              # of cdpo and rdpo: the share of labels believed to be wrong
    gamma: float = -1.0            # of simpo: by how much the better answer shall win
    lam: float = -1.0              # of orpo: weight of the odds ratio
    alpha: float = -1.0            # of length: price of a token; of nll: weight of the likelihood
    epochs: int = 1                # passes over the preferences
    batch: int = 8                 # prompts per step, each with all its pairs
    lr: float = 5e-5               # peak learning rate (Adam)
    max_new_tokens: int = 48       # longest answer, for the true utility in the log


# --- on a leash to the reference ------------------------------------------------------------------


def describe(margin):
    """For the log: how often and by how much the better answer leads; a tie counts half."""
    with torch.no_grad():
        return dict(accuracy=((margin > 0).float() + 0.5 * (margin == 0).float()).mean(),
                    margin=margin.mean())


def ipo_loss(pi_w, pi_l, ref_w, ref_l, tau):
    """(h - 1 / (2 tau))^2 (arXiv 2310.12036, eq. 17), h of sums. Four (N,) -> loss, stats
    Pushes the answers apart until h = 1 / (2 tau), and back beyond, the farther the harder."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    h = (pi_w - ref_w) - (pi_l - ref_l)
    return ((h - 1 / (2 * tau)) ** 2).mean(), describe(h)


def cdpo_loss(pi_w, pi_l, ref_w, ref_l, beta, eps):
    """-(1 - eps) log sigmoid(beta h) - eps log sigmoid(-beta h) (Mitchell 2023, eq. 3). -> loss,
    stats. Pushes until beta h = log((1 - eps) / eps): labels are believed less, not corrected."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    loss = -(1 - eps) * F.logsigmoid(margin) - eps * F.logsigmoid(-margin)
    return loss.mean(), describe(margin)


def rdpo_loss(pi_w, pi_l, ref_w, ref_l, beta, eps):
    """[-(1 - eps) log sigmoid(beta h) + eps log sigmoid(-beta h)] / (1 - 2 eps) (2403.00409).
    -> loss, stats. Under flips of a share eps its mean is DPO's on true labels; on a pair that
    nothing contradicts it pushes for ever, for it has no lower bound."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    loss = (-(1 - eps) * F.logsigmoid(margin) + eps * F.logsigmoid(-margin)) / (1 - 2 * eps)
    return loss.mean(), describe(margin)


def hinge_loss(pi_w, pi_l, ref_w, ref_l, beta):
    """max(0, 1 - beta h) (RSO, arXiv 2309.06657). Four (N,) -> loss, stats
    Pushes with full strength until h = 1 / beta, then not at all."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    return F.relu(1 - margin).mean(), describe(margin)


def norm_loss(pi_w, pi_l, ref_w, ref_l, n_w, n_l, beta):
    """-log sigmoid(beta [c / n_w - r / n_l]) (Tulu 3, arXiv 2411.15124). Six (N,) -> loss, stats
    DPO per token: pushes short answers most, and length alone earns nothing."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape == n_w.shape == n_l.shape
    margin = beta * ((pi_w - ref_w) / n_w - (pi_l - ref_l) / n_l)
    return -F.logsigmoid(margin).mean(), describe(margin)


def length_loss(pi_w, pi_l, ref_w, ref_l, n_w, n_l, beta, alpha):
    """-log sigmoid(beta h + alpha (n_w - n_l)) (R-DPO, arXiv 2403.19159). Six (N,) -> loss, stats
    A winner that is longer is pushed less: its length already explains the label."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape == n_w.shape == n_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    return -F.logsigmoid(margin + alpha * (n_w - n_l)).mean(), describe(margin)


def nll_loss(pi_w, pi_l, ref_w, ref_l, n_w, beta, alpha, best=slice(None)):
    """DPO + alpha mean(-m_w) (iterative RPO, arXiv 2404.19733, eq. 1). Five (N,) -> loss, stats
    best: the pairs that the likelihood is of, those whose winner is the best answer of a prompt;
    over all pairs it would imitate the last answer but one. Pushes the winner itself up."""
    loss, stats = dpo_loss(pi_w, pi_l, ref_w, ref_l, beta)
    nll = -(pi_w / n_w)[best].mean()
    return loss + alpha * nll, stats | dict(nll=nll.detach())


# --- single answers -------------------------------------------------------------------------------


def kto_baseline(log_ratio):
    """z0 = max(0, mean log pi/ref) over answers to OTHER prompts, an estimate of the KL that no
    gradient flows through (KTO, arXiv 2402.01306, eq. 8). (M,) -> ()"""
    return (log_ratio.detach().sum() / max(1, len(log_ratio))).clamp(min=0)


def kto_loss(log_ratio, desirable, z0, beta, weight_desirable, weight_undesirable):
    """weight (1 - sigmoid(+-beta (log pi/ref - z0))), + if desirable (2402.01306, eq. 8). (N,),
    (N,) of 0 and 1, () -> loss, stats. Pushes each answer alone, up or down, hardest while it is
    near z0: what is hopeless or done is left alone."""
    assert log_ratio.shape == desirable.shape
    sign = 2 * desirable - 1
    weight = torch.where(desirable > 0, weight_desirable, weight_undesirable)
    loss = weight * torch.sigmoid(-sign * beta * (log_ratio - z0))          # 1 - sigmoid(x)
    return loss.mean(), describe(sign * (log_ratio.detach() - z0)) | dict(z0=z0)


# --- without a reference --------------------------------------------------------------------------


def log_odds(m):
    """log p / (1 - p) of p = e^m, m < 0, exact and with a finite gradient as m nears 0."""
    m = m.clamp(max=-1e-6)
    return m - torch.log(-torch.expm1(m))


def orpo_loss(pi_w, pi_l, n_w, n_l, lam, best=slice(None)):
    """mean(-m_w) - lam log sigmoid(log_odds(m_w) - log_odds(m_l)) (arXiv 2403.07691, eq. 6, 7).
    Four (N,) -> loss, stats. best: as in nll_loss. Pushes like SFT, and besides the loser down,
    by 1 / (1 - e^m): the more certain an answer, the harder."""
    assert pi_w.shape == pi_l.shape == n_w.shape == n_l.shape
    nll, margin = -(pi_w / n_w)[best].mean(), log_odds(pi_w / n_w) - log_odds(pi_l / n_l)
    return nll - lam * F.logsigmoid(margin).mean(), describe(margin) | dict(nll=nll.detach())


def simpo_loss(pi_w, pi_l, n_w, n_l, beta, gamma):
    """-log sigmoid(beta (m_w - m_l) - gamma) (arXiv 2405.14734, eq. 6). Four (N,) -> loss, stats
    gamma itself, not gamma / beta. Pushes per token until the winner leads by gamma; no reference
    holds it, so read the KL."""
    assert pi_w.shape == pi_l.shape == n_w.shape == n_l.shape
    margin = beta * (pi_w / n_w - pi_l / n_l)
    return -F.logsigmoid(margin - gamma).mean(), describe(margin)


# --- which loss -----------------------------------------------------------------------------------


def measure_loss(loss, knobs, pi, ref, n, counts):
    """The mean over all pairs of a few prompts. pi, ref, n: of their answers, best first, one
    prompt after the other; counts: K of each, all alike, so that prompts weigh alike."""
    w, l = pairs(counts)
    best = (w % counts[0] == 0).nonzero().squeeze(1)    # pairs whose winner is a prompt's best
    four, tokens = (pi[w], pi[l], ref[w], ref[l]), (n[w], n[l])
    match loss:
        case "dpo":    found = dpo_loss(*four, **knobs)
        case "ipo":    found = ipo_loss(*four, **knobs)
        case "cdpo":   found = cdpo_loss(*four, **knobs)
        case "rdpo":   found = rdpo_loss(*four, **knobs)
        case "hinge":  found = hinge_loss(*four, **knobs)
        case "norm":   found = norm_loss(*four, *tokens, **knobs)
        case "length": found = length_loss(*four, *tokens, **knobs)
        case "nll":    found = nll_loss(*four, n[w], **knobs, best=best)
        case "simpo":  found = simpo_loss(pi[w], pi[l], *tokens, **knobs)
        case "orpo":   found = orpo_loss(pi[w], pi[l], *tokens, **knobs, best=best)
    moved = (pi - ref).detach()
    return found[0], found[1] | dict(chosen=moved[w].mean(), rejected=moved[l].mean())


# --- main -----------------------------------------------------------------------------------------


def main():
    config = read_flags(__doc__, Config)
    knobs, (device, generator) = choose_knobs(config), start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    ref, T = copy.deepcopy(model).requires_grad_(False), model.config.block_size
    items = comparisons.read(config.comparisons or f"{config.out}/comparisons.jsonl", tokenizer, T)
    train = items["train"][:config.prompts or None]             # [(prompt, [best, ..., worst])]
    if config.loss == "kto":                                    # [(prompt, [answer, ...])]
        train, desirable = (read_thumbs(config.thumbs, tokenizer, T, config.prompts)
                            if config.thumbs else split_halves(train))
        up, n = sum(map(sum, desirable)), sum(map(len, desirable))
        weight = max(1.0, n - up) / max(1.0, up)                # ups and downs weigh alike
    counts = [len(responses) for _, responses in train]
    watched = read_watched(config.comparisons or 0, config.seed, n=300)
    ref_of = all_logprobs(ref, train, device).split(counts)
    optimizer = make_adam(model.parameters(), config.lr)
    batches = [rows for _ in range(config.epochs)       # of prompts with the same K
               for rows in batch_prompts(train, config.batch, generator)]

    steps = Steps(config, config.loss)
    for step in steps.upto(len(batches), train, model=model, adam=optimizer):
        batch, rows = [train[i] for i in batches[step]], batches[step]
        tokens, mask = (x.to(device) for x in collate(flatten(batch)))
        pi, of_ref = sequence_logprob(model, tokens, mask), torch.cat([ref_of[i] for i in rows])
        if config.loss == "kto":
            z0 = kto_baseline(measure_drift(model, ref, mismatch(batch, T), device))
            thumbs = torch.tensor(sum((desirable[i] for i in rows), []), device=device)
            loss, stats = kto_loss(pi - of_ref, thumbs, z0, knobs["beta"], weight, 1.0)
        else:
            loss, stats = measure_loss(config.loss, knobs, pi, of_ref, mask[:, 1:].sum(dim=1),
                                       [counts[i] for i in rows])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(optimizer, config.lr * min(1, (step + 1) / 20) * (1 - step / len(batches)))
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 99 and step + 1 < len(batches):
            stats |= watch(config, model, ref, tokenizer, watched[:100])
        steps.log(step, loss=loss, norm=norm, **stats)

    found = measure_heldout(model, ref, items["valid"][:100], device)
    found |= watch(config, model, ref, tokenizer, watched)
    steps.end(model, model.config, tokenizer, describe_end(found), **found)


if __name__ == "__main__":
    run(main)
