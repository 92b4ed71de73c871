"""Steps 2b and 3 without a reward model: direct preference optimisation (arXiv 2305.18290).

For each prompt x the objective of ppo.py, without the ptx term, has its optimum at

    best(y|x) = ref(y|x) exp(r(x, y) / beta) / Z(x)                                   (DPO eq. 4)

where Z(x) = sum over y of ref(y|x) exp(r(x, y) / beta). The reason: the objective equals
beta log Z(x) - beta KL(policy || best), and only the KL depends on the policy. Take the trained
policy for the optimum and solve for the reward:

    r(x, y) = beta log(policy(y|x) / ref(y|x)) + beta log Z(x)                        (DPO eq. 5)

In the reward model's loss (reward.py) beta log Z(x) cancels, which leaves a loss of the policy:

    loss = -E[ log sigmoid( beta log(policy(y_w|x) / ref(y_w|x))
                          - beta log(policy(y_l|x) / ref(y_l|x)) ) ]                  (DPO eq. 7)

    python dpo.py            out/sft.pt, out/comparisons.jsonl -> out/dpo.pt

To train on comparisons of your own, see docs/using.md.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from data.batches import batch_comparisons, collate, logprobs_in_batches
from data.comparisons import flatten, label_accuracy, read_comparisons, split_by_prompt
from data.files import read_prompts
from generate import watch
from model import token_logprobs
from reward import pair_indices
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out: policy and reference
    comparisons: str = ""          # a file; default: comparisons.jsonl in --out
    beta: float = 0.3              # KL penalty; DPO paper 0.1, and 0.5 for TL;DR
    epochs: int = 2                # passes over the comparisons
    batch: int = 44                # responses per step, all of a prompt together; DPO paper 128
    lr: float = 5e-5               # peak learning rate (Adam); DPO paper 1e-6 (RMSprop)
    max_new_tokens: int = 48       # longest response, only for the log


def sequence_logprob(model, tokens, mask):
    """log pi(y | x), the sum over the response's tokens.  (B, T), (B, T) -> (B,)"""
    return (token_logprobs(model(tokens), tokens) * mask[:, 1:]).sum(dim=1)


def dpo_loss(pi_w, pi_l, ref_w, ref_l, beta):
    """DPO eq. 7, mean over pairs. Four log-probs of whole responses, of one shape
    -> loss (), stats {name: ()}"""
    assert pi_w.shape == pi_l.shape == ref_w.shape == ref_l.shape
    # the implicit rewards (DPO eq. 5), without beta log Z(x), which cancels in the margin
    reward_w = beta * (pi_w - ref_w)
    reward_l = beta * (pi_l - ref_l)
    margin = reward_w - reward_l
    loss = -F.logsigmoid(margin).mean()
    with torch.no_grad():
        stats = dict(accuracy=(margin > 0).float().mean(), margin=margin.mean(),
                     reward_chosen=reward_w.mean(), reward_rejected=reward_l.mean())
    return loss, stats


def logprob_all(model, examples, device):
    """log pi(y | x) of any number of responses.  [(prompt ids, response ids)] -> (N,)"""
    tokens, mask = collate(examples, device)
    return (logprobs_in_batches(model, tokens, mask) * mask[:, 1:]).sum(dim=1)


def lr_factor(step, n_steps):
    # differs from the DPO paper: 20 steps of warm-up and linear decay to 0; the paper has 150 steps
    # of warm-up, then a constant rate
    return min(1, (step + 1) / 20) * (1 - step / n_steps)


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    train, valid = read_comparisons(config.comparisons or f"{config.out}/comparisons.jsonl",
                                    tokenizer, policy.config.block_size)
    # the reference is the policy before training; its log-probs are computed once
    train_ref = split_by_prompt(logprob_all(policy, flatten(train), device), train)
    valid_ref = logprob_all(policy, flatten(valid), device)
    watched_prompts = [] if config.comparisons else read_prompts(200, "valid", config.seed)
    # differs from the DPO paper: Adam; the paper uses RMSprop
    adam = make_adam(policy.parameters(), config.lr)
    # differs from the DPO paper: every prompt has the same weight, as in InstructGPT's eq. 1; in
    # the paper every pair has
    batches = []
    for _ in range(config.epochs):
        batches += batch_comparisons(train, config.batch)
    n_steps = len(batches)

    run = Run(config, "dpo", n_steps, policy=policy, adam=adam)
    for step in range(run.first_step, n_steps):
        rows = batches[step]
        tokens, mask = collate(flatten([train[i] for i in rows]), device)               # (B K, T)
        logp = sequence_logprob(policy, tokens, mask).view(len(rows), -1)               # (B, K)
        ref_logp = torch.stack([train_ref[i] for i in rows])                            # (B, K)
        better, worse = pair_indices(logp.shape[1])
        loss, stats = dpo_loss(logp[:, better], logp[:, worse],
                               ref_logp[:, better], ref_logp[:, worse], config.beta)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        scale_lr(adam, lr_factor(step, n_steps))
        adam.step()
        adam.zero_grad()
        if step % 50 == 49:
            stats |= watch(policy, tokenizer, watched_prompts, config.max_new_tokens, config.seed)
        run.log(step, loss=loss, grad_norm=grad_norm, **stats)
        if step % 100 == 99:
            run.save(step)

    implicit_rewards = config.beta * (logprob_all(policy, flatten(valid), device) - valid_ref)
    run.finish(policy, tokenizer, accuracy=label_accuracy(split_by_prompt(implicit_rewards, valid)),
               **watch(policy, tokenizer, watched_prompts, config.max_new_tokens, config.seed))


if __name__ == "__main__":
    main()
