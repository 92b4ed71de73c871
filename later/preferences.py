"""Preference losses after DPO: the training loop of dpo.py with eleven losses to choose from.

pi and ref are log-probs of a response under the policy and the frozen reference, sums over its n
tokens; w is the chosen response of a pair, l the rejected one. In the equations below

    h = (pi_w - ref_w) - (pi_l - ref_l)       the margin, without beta
    m = pi / n                                the mean log-prob per token

    python -m later.preferences --loss ipo        out/sft.pt, out/comparisons.jsonl -> out/ipo.pt
    python -m later.preferences --loss orpo --init-from base --lr 1e-3           ... -> out/orpo.pt
    python -m later.preferences --loss kto --feedback FILE                       ... -> out/kto.pt

FILE holds single answers, good or bad; `read_feedback` has its format.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from data.batches import batch_comparisons, collate, encode_prompt, encode_response
from data.comparisons import flatten, read_comparisons, split_by_prompt
from data.files import get_prompt, get_text, read_prompts, read_records
from dpo import dpo_loss, logprob_all, sequence_logprob
from later.watch import log_ratio_all, measure_heldout, measure_policy
from reward import pair_indices
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    loss: str = "ipo"              # dpo ipo cdpo rdpo hinge norm length nll simpo orpo kto
    init_from: str = "sft"         # checkpoint in --out: policy and reference
    comparisons: str = ""          # a file; default: comparisons.jsonl in --out
    feedback: str = ""             # a file of single answers for kto; default: halves of rankings
    prompts: int = 0               # train on the first prompts only; 0: on all
    beta: float = -1.0             # KL penalty; -1 here and below: the value in DEFAULTS
    tau: float = -1.0              # of ipo, whose target is h = 1 / (2 tau)
    eps: float = -1.0              # of cdpo and rdpo: fraction of wrong labels
    gamma: float = -1.0            # of simpo: target margin
    lam: float = -1.0              # of orpo: weight of the odds ratio
    alpha: float = -1.0            # of length: price of a token; of nll: weight of the likelihood
    epochs: int = 1                # passes over the comparisons
    batch: int = 8                 # prompts per step, each with all its pairs
    lr: float = 5e-5               # peak learning rate (Adam)
    max_new_tokens: int = 48       # longest response, only for the log


# the hyperparameters that each loss has; the papers' beta of 0.1 is for models of 7B
DEFAULTS = {"dpo": dict(beta=0.5), "ipo": dict(tau=0.2), "cdpo": dict(beta=0.5, eps=0.1),
            "rdpo": dict(beta=0.5, eps=0.1), "hinge": dict(beta=0.5), "norm": dict(beta=5.0),
            "length": dict(beta=0.5, alpha=0.05), "nll": dict(beta=0.5, alpha=1.0),
            "simpo": dict(beta=2.0, gamma=1.0), "orpo": dict(lam=0.1), "kto": dict(beta=0.5)}


# --- with a reference -----------------------------------------------------------------------------


def ipo_loss(pi_w, pi_l, ref_w, ref_l, tau):
    """(h - 1 / (2 tau))^2 (IPO, arXiv 2310.12036, eq. 17).  Four (N,) -> loss, stats
    A larger margin than 1 / (2 tau) is pulled back. h is of sums, as in the paper."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    h = (pi_w - ref_w) - (pi_l - ref_l)
    return ((h - 1 / (2 * tau)) ** 2).mean(), describe(h)


def cdpo_loss(pi_w, pi_l, ref_w, ref_l, beta, eps):
    """-(1 - eps) log sigmoid(beta h) - eps log sigmoid(-beta h) (Mitchell 2023, eq. 3).
    Four (N,) -> loss, stats. Its minimum is at beta h = log((1 - eps) / eps)."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    loss = -(1 - eps) * F.logsigmoid(margin) - eps * F.logsigmoid(-margin)
    return loss.mean(), describe(margin)


def rdpo_loss(pi_w, pi_l, ref_w, ref_l, beta, eps):
    """[-(1 - eps) log sigmoid(beta h) + eps log sigmoid(-beta h)] / (1 - 2 eps) (arXiv 2403.00409).
    Four (N,) -> loss, stats. If a fraction eps of the labels is flipped, its expectation is DPO's
    loss on the true labels. It has no lower bound."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    loss = (-(1 - eps) * F.logsigmoid(margin) + eps * F.logsigmoid(-margin)) / (1 - 2 * eps)
    return loss.mean(), describe(margin)


def hinge_loss(pi_w, pi_l, ref_w, ref_l, beta):
    """max(0, 1 - beta h) (RSO, arXiv 2309.06657).  Four (N,) -> loss, stats
    The gradient is constant up to h = 1 / beta and 0 beyond."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    return F.relu(1 - margin).mean(), describe(margin)


def norm_loss(pi_w, pi_l, ref_w, ref_l, n_w, n_l, beta):
    """DPO per token: -log sigmoid(beta [(pi_w - ref_w) / n_w - (pi_l - ref_l) / n_l])
    (Tulu 3, arXiv 2411.15124).  Six (N,) -> loss, stats"""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape == n_w.shape == n_l.shape
    margin = beta * ((pi_w - ref_w) / n_w - (pi_l - ref_l) / n_l)
    return -F.logsigmoid(margin).mean(), describe(margin)


def length_loss(pi_w, pi_l, ref_w, ref_l, n_w, n_l, beta, alpha):
    """-log sigmoid(beta h + alpha (n_w - n_l)) (R-DPO, arXiv 2403.19159).  Six (N,) -> loss, stats
    The length of a longer winner explains part of its label, so its gradient is smaller."""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape == n_w.shape == n_l.shape
    margin = beta * ((pi_w - ref_w) - (pi_l - ref_l))
    return -F.logsigmoid(margin + alpha * (n_w - n_l)).mean(), describe(margin)


def nll_loss(pi_w, pi_l, ref_w, ref_l, n_w, beta, alpha, best=slice(None)):
    """DPO + alpha mean(-m_w) (iterative RPO, arXiv 2404.19733, eq. 1).  Five (N,) -> loss, stats
    best: the pairs whose winner is the best answer to its prompt. Over all pairs of a ranking, the
    second term would also imitate answers that are only better than the worst."""
    loss, stats = dpo_loss(pi_w, pi_l, ref_w, ref_l, beta)
    nll = -(pi_w / n_w)[best].mean()
    return loss + alpha * nll, stats | dict(nll=nll.detach())


def describe(margin):
    """For the log."""
    margin = margin.detach()
    return dict(accuracy=(margin > 0).float().mean(), margin=margin.mean())


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


def orpo_loss(pi_w, pi_l, n_w, n_l, lam, best=slice(None)):
    """mean(-m_w) - lam log sigmoid(log_odds(m_w) - log_odds(m_l)) (ORPO, arXiv 2403.07691, eq. 6
    and 7).  Four (N,) -> loss, stats. best: as in nll_loss"""
    assert pi_w.shape == pi_l.shape == n_w.shape == n_l.shape
    nll = -(pi_w / n_w)[best].mean()
    margin = log_odds(pi_w / n_w) - log_odds(pi_l / n_l)
    loss = nll - lam * F.logsigmoid(margin).mean()
    return loss, describe(margin) | dict(nll=nll.detach())


# --- single answers -------------------------------------------------------------------------------


def kto_baseline(log_ratio):
    """z0 = max(0, mean of log pi/ref) over answers to OTHER prompts, an estimate of the KL. No
    gradient flows through it (KTO, arXiv 2402.01306, eq. 8).  (M,) -> ()"""
    return (log_ratio.detach().sum() / max(1, len(log_ratio))).clamp(min=0)


def kto_loss(log_ratio, desirable, z0, beta, weight_desirable, weight_undesirable):
    """weight (1 - sigmoid(+-beta (log pi/ref - z0))), + if desirable (arXiv 2402.01306, eq. 8).
    (N,), (N,) of 0 and 1, () -> loss, stats"""
    assert log_ratio.shape == desirable.shape
    sign = 2 * desirable - 1
    margin = sign * beta * (log_ratio - z0)
    weight = torch.where(desirable > 0, weight_desirable, weight_undesirable)
    loss = weight * torch.sigmoid(-margin)                       # 1 - sigmoid(x) = sigmoid(-x)
    return loss.mean(), describe(margin) | dict(z0=z0)


class Feedback(NamedTuple):
    prompt: list            # token ids
    responses: list         # lists of token ids
    desirable: list         # 1.0 or 0.0 per response


def split_halves(comparisons):
    """The better half of every ranking is desirable, the worse half undesirable. The middle of an
    odd number is left out: it wins and loses. -> [Feedback]"""
    feedback = []
    for prompt, responses in comparisons:
        half = len(responses) // 2
        feedback.append(Feedback(prompt, responses[:half] + responses[-half:],
                                 [1.0] * half + [0.0] * half))
    return feedback


def read_feedback(path, tokenizer, block_size):
    """A line: {"prompt": "...", "completion": "...", "label": true}, or false for a bad answer, and
    optionally "ids", the completion's token ids. -> [Feedback], one per prompt"""
    feedback = {}
    for place, record in read_records(path):
        prompt = encode_prompt(tokenizer, get_prompt(record, place))
        if "ids" in record:
            response = record["ids"]
        else:
            response = encode_response(tokenizer, get_text(record, place, "completion"))
        label = record.get("label")
        check(isinstance(label, bool), f'{place}: "label" must be true or false')
        if len(prompt) + len(response) <= block_size:
            answers = feedback.setdefault(tuple(prompt), Feedback(prompt, [], []))
            answers.responses.append(response)
            answers.desirable.append(float(label))
    check(feedback, f"{path}: no answer fits into a context of {block_size} tokens")
    return list(feedback.values())


def balance(feedback):
    """-> the weight of a desirable answer with which both labels have the same total weight"""
    labels = []
    for answers in feedback:
        labels += answers.desirable
    return max(1, labels.count(0.0)) / max(1, labels.count(1.0))


def mismatch(batch, block_size):
    """Every prompt with the responses to the next prompt, where they fit. A batch of one prompt has
    none. -> [(prompt ids, response ids)]"""
    examples = []
    for i, answers in enumerate(batch):
        others = batch[(i + 1) % len(batch)]
        for response in others.responses:
            if len(batch) > 1 and len(answers.prompt) + len(response) <= block_size:
                examples.append((answers.prompt, response))
    return examples


# --- main -----------------------------------------------------------------------------------------


def read_hyperparameters(config):
    """-> {name: value} of the loss. A flag that the loss does not use is an error."""
    check(config.loss in DEFAULTS, f"--loss {config.loss}: must be one of {' '.join(DEFAULTS)}")
    hyper = dict(DEFAULTS[config.loss])
    for name in ("beta", "tau", "eps", "gamma", "lam", "alpha"):
        value = getattr(config, name)
        if value != -1:
            check(name in hyper, f"--loss {config.loss} does not use --{name}")
            hyper[name] = value
    return hyper


def comparison_loss(name, hyper, pi, ref, n):
    """The mean over all pairs of all prompts of a batch. pi, ref: log-probs of the responses under
    policy and reference, n: their tokens; (B, K), best first -> loss, stats"""
    w, l = pair_indices(pi.shape[1])
    pi_w, pi_l = pi[:, w].flatten(), pi[:, l].flatten()                          # (B C(K,2),)
    ref_w, ref_l = ref[:, w].flatten(), ref[:, l].flatten()
    n_w, n_l = n[:, w].flatten(), n[:, l].flatten()
    best = (w == 0).repeat(len(pi))                       # pairs with the best answer to a prompt
    logps = (pi_w, pi_l, ref_w, ref_l)
    match name:
        case "dpo":    loss, stats = dpo_loss(*logps, **hyper)
        case "ipo":    loss, stats = ipo_loss(*logps, **hyper)
        case "cdpo":   loss, stats = cdpo_loss(*logps, **hyper)
        case "rdpo":   loss, stats = rdpo_loss(*logps, **hyper)
        case "hinge":  loss, stats = hinge_loss(*logps, **hyper)
        case "norm":   loss, stats = norm_loss(*logps, n_w, n_l, **hyper)
        case "length": loss, stats = length_loss(*logps, n_w, n_l, **hyper)
        case "nll":    loss, stats = nll_loss(*logps, n_w, **hyper, best=best)
        case "simpo":  loss, stats = simpo_loss(pi_w, pi_l, n_w, n_l, **hyper)
        case "orpo":   loss, stats = orpo_loss(pi_w, pi_l, n_w, n_l, **hyper, best=best)
    with torch.no_grad():
        stats |= dict(chosen=(pi_w - ref_w).mean(), rejected=(pi_l - ref_l).mean())
    return loss, stats


def load_training_data(config, tokenizer, block_size):
    """-> train (comparisons, or feedback for KTO), held-out comparisons"""
    path = config.comparisons or f"{config.out}/comparisons.jsonl"
    train, valid = read_comparisons(path, tokenizer, block_size)
    if config.feedback:
        check(config.loss == "kto", f"--loss {config.loss} does not use --feedback")
        train = read_feedback(config.feedback, tokenizer, block_size)
    elif config.loss == "kto":
        train = split_halves(train)
    return train[:config.prompts or None], valid[:100]


def main():
    config = read_flags(__doc__, Config)
    hyper = read_hyperparameters(config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    ref = copy.deepcopy(model).requires_grad_(False)
    block_size = model.config.block_size
    train, valid = load_training_data(config, tokenizer, block_size)
    train_ref = split_by_prompt(logprob_all(ref, flatten(train), device), train)
    watched_prompts = [] if config.comparisons else read_prompts(300, "valid", config.seed)

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
            z0 = kto_baseline(log_ratio_all(model, ref, mismatch(batch, block_size), device))
            desirable = torch.tensor([answers.desirable for answers in batch], device=device)
            loss, stats = kto_loss(pi - pi_ref, desirable, z0, hyper["beta"], balance(train), 1.0)
        else:
            n = mask[:, 1:].sum(dim=1).view(len(batch), -1)                      # (B, K)
            loss, stats = comparison_loss(config.loss, hyper, pi, pi_ref, n)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, min(1, (step + 1) / 20) * (1 - step / n_steps))
        adam.step()
        adam.zero_grad()
        if step % 100 == 99:
            stats |= measure_policy(config, model, ref, tokenizer, watched_prompts[:100], device)
        run.log(step, loss=loss, grad_norm=grad_norm, **stats)
        if step % 100 == 99:
            run.save(step)

    run.finish(model, tokenizer, **measure_heldout(model, ref, valid, device),
               **measure_policy(config, model, ref, tokenizer, watched_prompts, device))


if __name__ == "__main__":
    main()
