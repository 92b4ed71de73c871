"""Steps 2b and 3 without a reward model: direct preference optimisation (arXiv 2305.18290).

The optimum of step 3's objective, without its ptx term, is
policy = ref * exp(score / beta) / Z(x) (eq. 4), so score = beta log(policy / ref) + beta log Z(x)
(eq. 5). Put into eq. 1, beta log Z(x) cancels, and the policy is fitted to the rankings itself.

    loss = -E[ log sigmoid(beta log pi/ref (y_w) - beta log pi/ref (y_l)) ]                 (eq. 7)

    python dpo.py            out/sft.pt, out/comparisons.jsonl -> out/dpo.pt

--comparisons takes any file of preferences (docs/using.md). Flags of every training script:
--out --seed --device --precision --resume (tools/flags.py).
"""

from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch.nn import functional as F

from data import comparisons
from data.batches import batch_prompts, collate, flatten, limit_rows
from data.comparisons import pair_accuracy, rank_values
from data.files import read_watched
from data.world.utility import assess
from model import load_gpt, respond, token_logprobs
from tools.device import start
from tools.flags import Training, check_ranges, read_flags, run
from tools.optimizers import make_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Config(Training):
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    comparisons: str = ""          # another file than comparisons.jsonl in --out
    beta: float = 0.5              # KL penalty; ppo.py's is 0.1; paper 0.1, for TL;DR 0.5
    epochs: int = 1                # passes over the comparisons
    batch: int = 8                 # prompts per step, each with all its pairs; paper 64 pairs
    lr: float = 5e-5               # peak learning rate (Adam); paper 1e-6 (RMSprop)
    max_new_tokens: int = 48       # longest answer, for the true utility in the log


# --- loss -----------------------------------------------------------------------------------------


def sequence_logprob(model, tokens, mask):
    """log pi(response | prompt), the sum over its tokens, not the mean. (B, T), (B, T) -> (B,)"""
    return (token_logprobs(model(tokens), tokens) * mask[:, 1:]).sum(dim=1)


def dpo_loss(pi_w, pi_l, ref_w, ref_l, beta):
    """-log sigmoid(beta [log pi/ref (y_w) - log pi/ref (y_l)]) (eq. 7). pi_w ... ref_l are sums of
    log-probs, (N,) each. -> loss (), stats {name: ()}"""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    chosen, rejected = pi_w - ref_w, pi_l - ref_l       # times beta: the implicit rewards (eq. 5)
    margin = beta * (chosen - rejected)
    with torch.no_grad():                               # in the accuracy a tie counts half
        stats = dict(accuracy=((margin > 0).float() + 0.5 * (margin == 0).float()).mean(),
                     margin=margin.mean(), chosen=chosen.mean(), rejected=rejected.mean())
    return -F.logsigmoid(margin).mean(), stats


# --- pairs and their log-probs --------------------------------------------------------------------


def pairs(counts):
    """Indices of better and of worse into the flattened responses of a few prompts, best first.
    counts: K of each prompt. -> (N,), (N,)"""
    found, first = [], 0
    for K in counts:
        found.append(first + torch.combinations(torch.arange(K), 2))
        first += K
    return torch.cat(found).unbind(dim=1)


@torch.no_grad()
def all_logprobs(model, items, device):
    """log pi(response | prompt) of every response, in order. -> (sum of the K,)"""
    examples = flatten(items)
    lengths = torch.tensor([len(prompt) + len(response) for prompt, response in examples])
    logp = torch.zeros(len(examples), device=device)
    for rows in lengths.argsort(stable=True).split(limit_rows(model.config)):
        tokens, mask = collate([examples[i] for i in rows])
        logp[rows] = sequence_logprob(model, tokens.to(device), mask.to(device))
    return logp


def measure_heldout(config, model, items, ref_logp, device):
    """-> the loss, a mean over prompts, and the accuracy of the implicit rewards (eq. 5) on pairs,
    by the reward model's definition"""
    counts = [len(responses) for _, responses in items]
    logp = all_logprobs(model, items, device)
    losses = []
    for pi, ref in zip(logp.split(counts), ref_logp.split(counts)):
        w, l = pairs([len(pi)])
        losses.append(dpo_loss(pi[w], pi[l], ref[w], ref[l], config.beta)[0])
    implicit = [reward.tolist() for reward in (logp - ref_logp).split(counts)]   # divided by beta
    return torch.stack(losses).mean(), pair_accuracy(implicit, [rank_values(range(K))
                                                                for K in counts])


# --- main -----------------------------------------------------------------------------------------


def watch(config, policy, tokenizer, prompts):
    """True utility and the share of right answers at temperature 1, for the log alone: training
    draws the same random numbers with it and without it."""
    generator = torch.Generator(policy.lm_head.weight.device).manual_seed(config.seed)
    answers = respond(policy, tokenizer, [p.text for p in prompts], config.max_new_tokens,
                      generator=generator)
    return assess(prompts, answers, tokenizer) if prompts else {}


def main():
    config = read_flags(__doc__, Config)
    check_ranges(config, above_0="beta")
    device, generator = start(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    items = comparisons.read(config.comparisons or f"{config.out}/comparisons.jsonl", tokenizer,
                             model.config.block_size)    # {split: [(prompt, [best, ..., worst])]}
    train, counts = items["train"], [len(responses) for _, responses in items["train"]]
    watched = read_watched(config.comparisons or 0, config.seed)
    ref_logp = {split: all_logprobs(model, items[split], device) for split in items}
    ref_of = ref_logp["train"].split(counts)
    # differs from the paper: Adam; the DPO paper used RMSprop
    optimizer = make_adam(model.parameters(), config.lr)
    # differs from the paper: prompts weigh alike, as in eq. 1 of 2203.02155; in the DPO paper pairs
    # do (a batch has one K, so the mean over its pairs is the mean over its prompts)
    batches = [rows for _ in range(config.epochs)
               for rows in batch_prompts(train, config.batch, generator)]

    steps = Steps(config, "dpo")
    for step in steps.upto(len(batches), train, model=model, adam=optimizer):
        rows = batches[step]
        tokens, mask = collate(flatten([train[i] for i in rows]))
        pi = sequence_logprob(model, tokens.to(device), mask.to(device))
        ref, (w, l) = torch.cat([ref_of[i] for i in rows]), pairs([counts[i] for i in rows])
        loss, stats = dpo_loss(pi[w], pi[l], ref[w], ref[l], config.beta)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # differs from the paper: 20 steps of warm-up and a fall to 0; there 150, then constant
        set_lr(optimizer, config.lr * min(1, (step + 1) / 20) * (1 - step / len(batches)))
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49 or step + 1 == len(batches):
            stats |= watch(config, model, tokenizer, watched)
        steps.log(step, loss=loss, norm=norm, **stats)

    loss, accuracy = measure_heldout(config, model, items["valid"], ref_logp["valid"], device)
    reached = {key: stats[key] for key in ("gold", "right") if watched}
    truth = ", true utility {gold:.2f}, right {right:.0%}".format(**reached) if reached else ""
    steps.end(model, model.config, tokenizer, f"held-out accuracy {accuracy:.1%}{truth}",
              heldout_accuracy=accuracy, heldout_loss=loss, **reached)


if __name__ == "__main__":
    run(main)
