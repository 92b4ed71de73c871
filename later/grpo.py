"""GRPO: policy gradient with a group of answers as the baseline (DeepSeekMath, arXiv 2402.03300).

    loss = -mean_i 1/n_i sum_t [ min(ratio A_i, clip(ratio) A_i) - beta k3 ]          (eq. 3)
    A_i  = (r_i - mean r) / std r

The mean reward r of G answers to the same prompt replaces PPO's value function; n_i is the length
of answer i in tokens. Two relatives sum over tokens and divide by a constant in place of n_i:

    --method dr_grpo    A_i = r_i - mean r                  Dr. GRPO, 2503.20783
    --method rloo       A_i = r_i - mean of the others      RLOO, 2402.14740, which does not clip

    python -m later.grpo                 out/sft.pt, a strict verifier (verifiers.py) -> out/grpo.pt
    python -m later.grpo --reward model  the reward model instead, out/reward.pt
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from data.batches import encode_prompt
from later.verifiers import load_score_fn, make_checkable
from model import masked_mean, sample, token_logprobs
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out: policy and reference
    name: str = "grpo"             # checkpoint in --out that is written
    reward: str = "strict"         # strict or loose: a verifier; model: the reward model
    method: str = "grpo"           # grpo, dr_grpo or rloo
    iterations: int = 60           # each samples answers and makes one pass over them
    prompts: int = 16              # per iteration
    group: int = 8                 # answers per prompt, G; paper 64
    minibatch: int = 64            # answers per optimizer step; paper 1,024
    max_new_tokens: int = 48       # longest answer
    beta: float = 0.0              # KL penalty in the loss of grpo; paper 0.04
    clip: float = 0.2              # of the ratio
    lr: float = 2e-4               # peak learning rate (Adam); paper 1e-6


def group_advantages(scores, std):
    """r - mean of each group, over its population std if `std` (section 4.1.2); without std it is
    Dr. GRPO's.  (N, G) -> (N, G). Equal scores give 0: 1e-4 is larger than the mean's rounding."""
    assert scores.ndim == 2 and scores.shape[1] > 1, f"{tuple(scores.shape)} are no groups"
    adv = scores - scores.mean(dim=1, keepdim=True)
    return adv / (scores.std(dim=1, keepdim=True, correction=0) + 1e-4) if std else adv


def leave_one_out(scores):
    """r minus the mean of the other G - 1, which is G/(G-1) (r - mean) (2402.14740, section 2.3).
    (N, G) -> (N, G)"""
    G = scores.shape[1]
    return G / (G - 1) * group_advantages(scores, std=False)


def clipped_terms(logp, old_logp, adv, mask, clip):
    """min(ratio A, clip(ratio) A) of every token (PPO, 1707.06347, eq. 7).
    Four (B, T-1), where adv may be (B,) -> (B, T-1), stats {name: ()}"""
    assert logp.shape == old_logp.shape == mask.shape and len(adv) == len(mask)
    adv = adv[:, None] if adv.ndim == 1 else adv
    log_ratio = (logp - old_logp) * mask                 # masked before exp, against overflow
    ratio = log_ratio.exp()
    unclipped = ratio * adv
    clipped = ratio.clamp(1 - clip, 1 + clip) * adv
    stats = dict(clip_fraction=masked_mean((clipped < unclipped).float(), mask),
                 approx_kl=masked_mean(ratio - 1 - log_ratio, mask).detach())
    return torch.minimum(unclipped, clipped) * mask, stats


def k3(logp, ref_logp, mask):
    """ref/policy - 1 - log(ref/policy) of every token (eq. 4): never negative, and since y ~ policy
    its mean is KL(policy || ref).  Three (B, T-1) -> (B, T-1)"""
    log_ratio = (ref_logp - logp) * mask
    return log_ratio.exp() - 1 - log_ratio


def grpo_loss(logp, old_logp, ref_logp, adv, mask, clip, beta):
    """Eq. 3: mean over answers of the mean over their tokens.  -> loss (), stats"""
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    objective = terms - beta * k3(logp, ref_logp, mask)
    return -(objective.sum(dim=1) / mask.sum(dim=1)).mean(), stats


def dr_grpo_loss(logp, old_logp, adv, mask, clip, max_new_tokens):
    """The sum over tokens / max_new_tokens, so that long wrong answers are not punished less per
    token (2503.20783). At ratio 1 the gradient is that of -A log policy(y|x).  -> loss (), stats"""
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    return -(terms.sum(dim=1) / max_new_tokens).mean(), stats


@torch.no_grad()
def sample_groups(config, policy, ref, prompts, tokenizer):
    """G answers to each prompt, in adjacent rows; B = prompts * G.
    -> tokens, response mask (B, T), logp, ref_logp (B, T-1)"""
    queries = []
    for prompt in prompts:
        queries += [encode_prompt(tokenizer, prompt.text)] * config.group
    tokens, response_mask = sample(policy, queries, config.max_new_tokens, eos=tokenizer.eos)
    logp = token_logprobs(policy(tokens), tokens)
    ref_logp = token_logprobs(ref(tokens), tokens)
    return tokens, response_mask, logp, ref_logp


def update(config, policy, adam, tokens, mask, old_logp, ref_logp, adv):
    """One pass over minibatches. -> stats of the last one {name: ()}"""
    for rows in torch.randperm(len(tokens)).split(config.minibatch):
        logp = token_logprobs(policy(tokens[rows]), tokens[rows])
        if config.method == "grpo":
            loss, stats = grpo_loss(logp, old_logp[rows], ref_logp[rows], adv[rows], mask[rows],
                                    config.clip, config.beta)
        else:
            loss, stats = dr_grpo_loss(logp, old_logp[rows], adv[rows], mask[rows],
                                       config.clip, config.max_new_tokens)
        loss.backward()
        stats["grad_norm"] = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
    return stats | dict(loss=loss.detach())


def train(config, policy, prompts, score_fn, tokenizer, step_fn=None):
    """score_fn: tokens, response mask (B, T) -> scores (B,), one per answer. step_fn rewards steps
    instead (later/reasoning.py): prompts, tokens, response mask -> advantages (B, T-1), reward ()
    """
    ref = copy.deepcopy(policy).requires_grad_(False)
    adam = make_adam(policy.parameters(), config.lr)
    run = Run(config, config.name, config.iterations, policy=policy, adam=adam)
    for iteration in range(run.first_step, config.iterations):
        # 1 sample G answers to each prompt of a batch
        batch = [prompts[i] for i in torch.randint(len(prompts), (config.prompts,))]
        tokens, response_mask, logp, ref_logp = sample_groups(config, policy, ref, batch, tokenizer)
        mask = response_mask[:, 1:]
        # 2 score whole answers
        scores = score_fn(tokens, response_mask).view(-1, config.group)
        # y ~ policy, so kl is KL(policy || ref); groups with equal scores have no gradient
        metrics = dict(score=scores.mean(), kl=((logp - ref_logp) * mask).sum(dim=1).mean(),
                       length=mask.sum(dim=1).mean(),
                       informative=(scores.amax(dim=1) > scores.amin(dim=1)).float().mean())
        # 3 advantages within each group, before it is split over minibatches
        if step_fn is not None:
            adv, metrics["step_reward"] = step_fn(batch, tokens, response_mask)
        elif config.method == "rloo":
            adv = leave_one_out(scores).flatten()
        else:
            adv = group_advantages(scores, std=config.method == "grpo").flatten()
        # 4 update the policy
        scale_lr(adam, min(1, 0.1 + 0.9 * iteration / 10))                              # warm-up
        metrics |= update(config, policy, adam, tokens, mask, logp, ref_logp, adv)
        run.log(iteration, **metrics)
        if iteration % 10 == 9:
            run.save(iteration)
    run.finish(policy, tokenizer, score=metrics["score"], kl=metrics["kl"])


def main():
    config = read_flags(__doc__, Config)
    check(config.method in ("grpo", "dr_grpo", "rloo"), "--method must be grpo, dr_grpo or rloo")
    check(config.group > 1, f"--group {config.group} must be at least 2")
    check(config.beta == 0 or config.method == "grpo", "--beta is a flag of --method grpo")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    prompts = make_checkable(1000, "train", config.seed)
    score_fn = load_score_fn(config, prompts, policy, tokenizer, device)
    train(config, policy, prompts, score_fn, tokenizer)


if __name__ == "__main__":
    main()
