"""The same objective in closed form: direct preference optimisation (arXiv 2305.18290).

The optimum of step 3's objective is policy = ref * exp(score / beta) / Z (eq. 4), so
score = beta log(policy / ref) plus a constant of the prompt (eq. 5). Put into the Bradley-Terry
likelihood, the constant cancels: no reward model, no sampling.

    python dpo.py            out/sft.pt, out/comparisons.jsonl -> out/dpo.pt

--comparisons takes any file of preferences (formats: data/source.py); give it --prompts too, since
the true utility is known in the small world alone.
"""

from dataclasses import dataclass

# first, since it says how torch's threads wait
from plumbing import Steps, Training, adam, check, flags, prepare, run, set_lr, start
import torch
from torch.nn import functional as F

from data import comparisons
from data.batches import batches_of_prompts, collate, rows_that_fit
from data.comparisons import pair_accuracy, places
from data.source import prompts
from data.utility import assess
from model import load_gpt, respond, save, token_logprobs


@dataclass(frozen=True)
class Config(Training):
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    comparisons: str = ""          # another file than comparisons.jsonl in --out
    beta: float = 0.5              # strength of the tether; paper 0.1
    epochs: int = 1                # passes over the comparisons
    batch: int = 8                 # prompts a step, each with all its pairs; paper 64 pairs
    lr: float = 5e-5               # peak learning rate (Adam); paper 1e-6 (RMSprop)
    max_new_tokens: int = 48       # longest answer, for the true utility in the log
    eval_prompts: int = 128        # for the true utility in the log; with --comparisons none


# --- loss -----------------------------------------------------------------------------------------


def sequence_logprob(model, tokens, mask):
    """log pi(response | prompt), the sum over its tokens, not the mean. (B, T), (B, T) -> (B,)"""
    return (token_logprobs(model(tokens), tokens) * mask[:, 1:]).sum(dim=1)


def dpo_loss(pi_w, pi_l, ref_w, ref_l, beta):
    """-log sigmoid(beta [log pi/ref (y_w) - log pi/ref (y_l)]) (eq. 7). Four (N,) -> loss, stats"""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    chosen, rejected = pi_w - ref_w, pi_l - ref_l       # times beta: the implicit rewards (eq. 5)
    margin = beta * (chosen - rejected)
    right = (margin > 0).float() + 0.5 * (margin == 0).float()         # a tie counts half
    stats = dict(accuracy=right.mean(), margin=margin.mean(),
                 chosen=chosen.mean(), rejected=rejected.mean())
    return -F.logsigmoid(margin).mean(), {key: value.detach() for key, value in stats.items()}


# --- pairs ----------------------------------------------------------------------------------------


@torch.no_grad()
def all_logprobs(model, items, device, batch=128):
    """log pi(response | prompt) of every response. -> a list of (K,) tensors, one a prompt"""
    batch = min(batch, rows_that_fit(model.config))
    flat = [(prompt, response) for prompt, responses in items for response in responses]
    order = sorted(range(len(flat)), key=lambda i: sum(map(len, flat[i])))
    logp = torch.zeros(len(flat), device=device)
    for rows in (order[i:i + batch] for i in range(0, len(order), batch)):
        tokens, mask = collate([flat[i] for i in rows])
        logp[rows] = sequence_logprob(model, tokens.to(device), mask.to(device))
    return logp.split([len(responses) for _, responses in items])


def pairs(counts):
    """Index pairs (better, worse) into the flattened responses of a few prompts.

    counts: the number of responses of each prompt, which stand best first.
    """
    found, first = [], 0
    for k in counts:
        found.append(first + torch.combinations(torch.arange(k), 2))
        first += k
    return torch.cat(found).unbind(dim=1)


def loss_of(model, items, ref_logp, rows, beta, device):
    """K forward passes a prompt, all of its C(K,2) pairs. -> loss, stats: means over pairs"""
    tokens, mask = collate([(items[i][0], response) for i in rows for response in items[i][1]])
    pi, ref = (sequence_logprob(model, tokens.to(device), mask.to(device)),
               torch.cat([ref_logp[i] for i in rows]))
    better, worse = pairs([len(items[i][1]) for i in rows])
    return dpo_loss(pi[better], pi[worse], ref[better], ref[worse], beta)


def add_gradients(config, model, items, ref_logp, rows, device):
    """Backward for prompts of K answers each, as many at a time as --microbatch sequences allow.
    -> loss, stats"""
    K = len(items[rows[0]][1])
    assert all(len(items[i][1]) == K for i in rows), "prompts of one batch differ in K"
    size = max(1, config.microbatch // K) if config.microbatch else len(rows)
    total, stats = 0.0, {}
    for part in (rows[i:i + size] for i in range(0, len(rows), size)):
        share = len(part) / len(rows)
        loss, found = loss_of(model, items, ref_logp, part, config.beta, device)
        (loss * share).backward()
        total += loss.detach() * share
        stats = {key: stats.get(key, 0.0) + value * share for key, value in found.items()}
    return total, stats


# --- evaluation -----------------------------------------------------------------------------------


def heldout(config, model, items, ref_logp, device):
    """-> the loss, a mean over prompts, and the accuracy of the implicit rewards (eq. 5) on pairs,
    by the reward model's definition."""
    logp = all_logprobs(model, items, device)
    implicit = [(pi - ref).tolist() for pi, ref in zip(logp, ref_logp)]     # over beta, best first
    best_first = [places(range(len(values))) for values in implicit]
    losses = []
    for pi, ref in zip(logp, ref_logp):
        better, worse = pairs([len(pi)])
        losses.append(dpo_loss(pi[better], pi[worse], ref[better], ref[worse], config.beta)[0])
    return torch.stack(losses).mean(), pair_accuracy(implicit, best_first)


def watch(config, policy, tokenizer, watched):
    """True utility and the share of right answers at temperature 1, for the log alone: training
    draws the same random numbers with it and without it."""
    generator = torch.Generator(policy.lm_head.weight.device).manual_seed(config.seed)
    answers = respond(policy, tokenizer, [p.text for p in watched], config.max_new_tokens,
                      generator=generator)
    return assess(watched, answers, tokenizer)


# --- main -----------------------------------------------------------------------------------------


def main():
    config = flags(Config, __doc__)
    check(config.beta > 0, f"--beta {config.beta} must be above 0")
    device, generator = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", "python sft.py", device)
    items = comparisons.read(config.comparisons or f"{config.out}/comparisons.jsonl", tokenizer,
                             model.config.block_size)
    ref_logp = {split: all_logprobs(model, items[split], device) for split in items}
    watched = [] if config.comparisons else prompts(config.eval_prompts, "eval", config.seed)
    steps = Steps(config, "dpo")

    optimizer = adam(model.parameters(), config.lr)
    # differs from the paper: prompts weigh alike, not pairs (2203.02155, eq. 1), for the pairs of a
    # prompt say much the same; one K a batch, so the mean over its pairs is that over its prompts
    batches = [rows for _ in range(config.epochs)
               for rows in batches_of_prompts(items["train"], config.batch, generator)]
    prepare(config, model)
    for step in steps.upto(len(batches), items["train"], model=model, adam=optimizer):
        rows = batches[step]
        loss, stats = add_gradients(config, model, items["train"], ref_logp["train"], rows, device)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # differs from the paper: after the warm-up the learning rate falls linearly to 0
        set_lr(optimizer, config.lr * min(1, (step + 1) / 20) * (1 - step / len(batches)))
        optimizer.step()
        optimizer.zero_grad()
        if watched and (step % 50 == 49 or step + 1 == len(batches)):
            stats |= watch(config, model, tokenizer, watched)
        steps.log(step, loss=loss, norm=norm, **stats)

    loss, accuracy = heldout(config, model, items["valid"], ref_logp["valid"], device)
    reached = {key: stats[key] for key in ("gold", "right") if watched}
    truth = (", true utility {gold:.2f}, right at temperature 1: {right:.0%}".format(**reached)
             if watched else "")
    save(f"{config.out}/dpo.pt", "dpo", model, model.config, tokenizer)
    steps.end(f"{config.out}/dpo.pt: held-out accuracy {accuracy:.1%}{truth}",
              heldout_accuracy=accuracy, heldout_loss=loss, **reached)


if __name__ == "__main__":
    run(main)
