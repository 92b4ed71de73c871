"""Policy gradient without a value function, on answers that a program can check (RLVR).

G answers to one prompt are each other's baseline: whoever beats the group is made likelier.

    GRPO       adv = (r - mean) / std, mean over answers of means over tokens     arXiv 2402.03300
    Dr. GRPO   adv = r - mean, sum over tokens / a constant                       arXiv 2503.20783
    RLOO       adv = r - mean of the others, an answer is one action              arXiv 2402.14740

1 sample       G answers ~ policy to each prompt of a batch
2 verify       what each answer earns: later/verifiers.py
3 advantages   within the group, before answers are parted into minibatches
4 update       one pass; the tether is beta, the clipping, and the number of steps

    python -m later.grpo                          out/sft.pt, a strict verifier -> out/strict.pt
    python -m later.grpo --signal loose           the answer is contained       -> out/loose.pt
    python -m later.grpo --signal reward          out/reward.pt on the same prompts -> by_reward.pt
    python -m later.grpo --begin chains --signal final     worked sums (later/reasoning.py)

Flags of every stage: --out --seed --device --precision --resume (tools/flags.py).
"""

import copy
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch import Tensor

from data.batches import batch_by_length, draw_windows, encode_prompt, pack
from data.files import read_documents
from later.checkable import describe, describe_end, make_watched, observe
from later.process import step_advantages
from later.verifiers import (CHAINS, WORLD, choose_name, judge_answers, judge_steps, load_judge,
                             make_task)
from model import last_index, load_gpt, masked_mean, sample, token_logprobs
from ppo import step
from sft import lm_loss
from tools.device import start
from tools.flags import Training, check, check_ranges, read_flags, run
from tools.optimizers import make_adam, set_lr
from tools.steps import Steps, mean_of


@dataclass(frozen=True)
class Config(Training):
    method: str = "grpo"           # grpo, dr_grpo or rloo
    signal: str = "strict"         # strict, loose, reward; of worked sums final, trace, steps, prm
    judge: str = "prm"             # checkpoint in --out that judges steps for --signal prm
    begin: str = "sft"             # checkpoint in --out that policy and reference begin with
    name: str = ""                 # of the checkpoint that is written; else the signal's, by_reward
    prompts: int = 1000            # with one checkable answer, or worked sums, to draw from
    iterations: int = 60           # of sampling and learning
    asked: int = 16                # prompts per iteration
    group: int = 8                 # answers per prompt, G; paper 64
    minibatch: int = 64            # answers per optimiser step
    max_new_tokens: int = 48       # longest answer
    beta: float = 0.0              # KL penalty, in the loss, for rloo in the reward; paper 0.04
    clip: float = 0.2              # of the ratio
    ptx: float = 0.0               # weight of the pretraining gradient, 0: none
    lr: float = 2e-4               # of the policy, warmed up over 10 iterations; paper 1e-6


# --- 3 advantages ---------------------------------------------------------------------------------


def group_advantages(scores, std):
    """(r - mean) / (std + 1e-4) of each group, population std (2402.03300, section 4.1.2); without
    std Dr. GRPO's. (N, G) -> (N, G). Equal scores give 0: 1e-4 outweighs the mean's rounding."""
    assert scores.ndim == 2 and scores.shape[1] > 1, f"groups of {scores.shape[-1]}: 2 or more"
    adv = scores - scores.mean(dim=1, keepdim=True)
    return adv / (scores.std(dim=1, keepdim=True, correction=0) + 1e-4) if std else adv


def leave_one_out(scores):
    """r minus the mean of the other G - 1 = G/(G-1) (r - mean) (2402.14740, section 2.3).
    (N, G) -> (N, G)"""
    adv = group_advantages(scores, std=False)
    return scores.shape[1] / (scores.shape[1] - 1) * adv


# --- 4 losses -------------------------------------------------------------------------------------


def clipped_terms(logp, old_logp, adv, mask, clip):
    """min(rho A, clip(rho) A) of every token, rho = policy / old (1707.06347, eq. 7).
    (B, T-1) each; adv (B,), or (B, T-1) where steps earn. -> (B, T-1), stats"""
    assert logp.shape == old_logp.shape == mask.shape and len(adv) == len(mask)
    adv = adv if adv.ndim == 2 else adv[:, None]
    log_ratio = (logp - old_logp) * mask             # masked before exp: padding cannot overflow
    ratio = log_ratio.exp()
    unclipped, clipped = ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv
    with torch.no_grad():
        stats = dict(clipfrac=masked_mean((clipped < unclipped).float(), mask),
                     approx_kl=masked_mean(ratio - 1 - log_ratio, mask))
    return torch.minimum(unclipped, clipped) * mask, stats


def k3(logp, ref_logp, mask):
    """ref/policy - 1 - log(ref/policy) of every token: never below 0, its mean under y ~ policy is
    KL(policy || ref) (2402.03300, eq. 4). (B, T-1) -> (B, T-1)"""
    log_ratio = (ref_logp - logp) * mask
    return log_ratio.exp() - 1 - log_ratio


def grpo_loss(logp, old_logp, ref_logp, adv, mask, clip, beta):
    """-mean_i 1/n_i sum_t [min(rho A, clip(rho) A) - beta k3] (2402.03300, eq. 3).
    (B, T-1) each, adv (B,) -> loss, stats"""
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    objective = terms - beta * k3(logp, ref_logp, mask)
    return -(objective.sum(dim=1) / mask.sum(dim=1)).mean(), stats


def dr_grpo_loss(logp, old_logp, adv, mask, clip, most):
    """-1/(B most) sum_i sum_t min(rho A, clip(rho) A): divided by the longest answer allowed, a
    constant, never by an answer's own length (2503.20783). -> loss, stats"""
    terms, stats = clipped_terms(logp, old_logp, adv, mask, clip)
    return -terms.sum() / (len(mask) * most), stats


def rloo_loss(logp, adv, mask):
    """-mean_i A_i sum_t log policy: no ratio, no clipping (2402.14740, section 2.3). -> ()"""
    adv = adv if adv.ndim == 2 else adv[:, None]
    return -(adv * logp * mask).sum(dim=1).mean()


# --- 1 to 3 rollout -------------------------------------------------------------------------------


@dataclass
class Rollout:
    """N = asked * group answers, a prompt's side by side; arrays about actions are (N, T-1)."""
    tokens: Tensor      # (N, T)    prompt, answer, padding
    mask: Tensor        #           1 on the answer with its end-of-text token
    logp: Tensor        #           under the policy that sampled
    ref_logp: Tensor    #           under SFT
    adv: Tensor         #           A; the same at every token unless steps earn
    scores: Tensor      # (N,)      what the answer earned

    def minibatch(self, rows):
        """The same of a few rows, cut to the longest of them."""
        T = last_index(self.mask[rows]).max() + 2
        actions = (x[rows, :T - 1] for x in (self.mask, self.logp, self.ref_logp, self.adv))
        return Rollout(self.tokens[rows, :T], *actions, self.scores[rows])


@torch.no_grad()
def rollout(config, policy, ref, judge, drawn, tokenizer, generator):
    """Steps 1 to 3. -> Rollout, minibatches (lists of rows) of like length"""
    prompts = [prompt for prompt in drawn for _ in range(config.group)]
    tokens, response = sample(policy, [encode_prompt(tokenizer, p.text) for p in prompts],
                              config.max_new_tokens, eos=tokenizer.eos)                 # 1 sample
    mask, lengths = response[:, 1:], last_index(response) + 1
    logp, ref_logp = torch.zeros_like(mask), torch.zeros_like(mask)
    minibatches = batch_by_length(lengths.tolist(), config.minibatch, generator)
    for rows in minibatches:
        x = tokens[rows, :lengths[rows].max()]
        logp[rows, :x.shape[1] - 1] = token_logprobs(policy(x), x)
        ref_logp[rows, :x.shape[1] - 1] = token_logprobs(ref(x), x)
    answers = [row[kept > 0].tolist() for row, kept in zip(tokens, response)]
    if config.signal in ("steps", "prm"):                                               # 2 verify
        ends, rewards = judge_steps(config.signal, judge, prompts, answers, tokenizer)
        starts = response.argmax(dim=1) - 1                  # the action of an answer's first token
        ends = [[int(start) + end for end in some] for start, some in zip(starts, ends)]
        scores = torch.tensor([min(some, default=0.0) for some in rewards], device=mask.device)
        groups = [slice(i, i + config.group) for i in range(0, len(prompts), config.group)]
        adv = torch.cat([step_advantages(rewards[g], ends[g], mask.shape[1])        # 3 advantages
                         for g in groups]).to(mask.device)
    else:
        scores = judge_answers(config.signal, judge, prompts, answers, tokenizer).to(mask.device)
        kl = ((logp - ref_logp) * mask).sum(dim=1)            # y ~ policy: its mean is the KL
        reward = scores - config.beta * kl if config.method == "rloo" else scores
        adv = find_advantages(config.method, reward.view(-1, config.group)).flatten()
        adv = adv[:, None].expand_as(mask)
    return Rollout(tokens, mask, logp, ref_logp, adv, scores), minibatches


def find_advantages(method, scores):
    """(N, G) -> (N, G)"""
    if method == "rloo":
        return leave_one_out(scores)
    return group_advantages(scores, std=method == "grpo")


# --- main -----------------------------------------------------------------------------------------


def find_loss(config, policy, batch):
    """-> loss, stats of one minibatch by the chosen method"""
    logp = token_logprobs(policy(batch.tokens), batch.tokens)
    if config.method == "grpo":
        return grpo_loss(logp, batch.logp, batch.ref_logp, batch.adv, batch.mask, config.clip,
                         config.beta)
    if config.method == "dr_grpo":
        return dr_grpo_loss(logp, batch.logp, batch.adv, batch.mask, config.clip,
                            config.max_new_tokens)
    return rloo_loss(logp, batch.adv, batch.mask), {}


def check_flags(config):
    check(config.method in ("grpo", "dr_grpo", "rloo"),
          f"--method {config.method}: grpo, dr_grpo or rloo")
    check(config.signal in WORLD + CHAINS,
          f"--signal {config.signal}: one of {' '.join(WORLD + CHAINS)}")
    check_ranges(config, at_least_0="beta ptx", above_0="clip")
    check(config.method == "grpo" or config.signal not in ("steps", "prm"),
          f"--method {config.method}: --signal {config.signal} rewards steps, for grpo alone")
    check(config.group > 1, f"--group {config.group}: at least 2 answers are to be compared")
    check(config.beta == 0 or config.method != "dr_grpo", "--beta: --method dr_grpo has no KL term")
    check(config.minibatch <= config.asked * config.group,
          f"--minibatch {config.minibatch}: at most --asked times --group")
    return choose_name(config)


def main():
    config = read_flags(__doc__, Config)
    name = check_flags(config)
    device, generator = start(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    ref = copy.deepcopy(policy).requires_grad_(False)
    judge, adam = load_judge(config, device), make_adam(policy.parameters(), config.lr)
    prompts = make_task(config.signal, config.prompts, config.seed)
    watched = make_watched(config.signal, config.seed)
    stream = pack(tokenizer, read_documents(2000, config.seed)) if config.ptx else []

    steps = Steps(config, name)
    for iteration in steps.upto(config.iterations, prompts, policy=policy, adam=adam,
                                generator=generator):
        drawn = [prompts[i] for i in torch.randint(len(prompts), (config.asked,),
                                                   generator=generator)]
        ro, minibatches = rollout(config, policy, ref, judge, drawn, tokenizer, generator)
        set_lr(adam, config.lr * min(1, 0.1 + 0.9 * iteration / 10))
        stats = []
        for rows in minibatches:                                                        # 4 update
            loss, found = find_loss(config, policy, ro.minibatch(rows))
            if config.ptx:
                text = draw_windows(stream, (len(rows) + 1) // 2, policy.config.block_size,
                                    generator)[0].to(device)
                loss = loss + config.ptx * lm_loss(policy(text), text, torch.ones_like(text))
            stats.append(found | dict(loss=loss.detach(), norm=step(loss, policy, adam)))
        found = describe(ro, config.group) | mean_of(stats)
        assert iteration or found["kl"].abs() < 1e-3, f"the KL is {found['kl']} at the start"
        if iteration % 20 == 19:
            found |= observe(config, policy, ref, tokenizer, watched)
        steps.log(iteration, samples=(iteration + 1) * len(ro.scores), **found)

    found |= observe(config, policy, ref, tokenizer, make_watched(config.signal, config.seed, 250))
    steps.end(policy, policy.config, tokenizer, describe_end(found), **found)


if __name__ == "__main__":
    run(main)
