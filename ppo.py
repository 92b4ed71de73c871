"""Step 3: PPO. Maximise the reward model's score with a KL penalty to the SFT model.

The objective (InstructGPT, arXiv 2203.02155, eq. 2; `ptx` is the paper's gamma):

    E[ r(x, y) - beta log(policy(y|x) / ref(y|x)) ] + ptx E[ log policy(text) ]

x is drawn from the prompts, y from the policy, and text from the documents. The log-ratio is a sum
over the tokens of y, so the first term is the expected sum of rewards, one per token (3 below). PPO
calls the choice of a token an action. It raises the probability of an action if more reward came
from there on than the value function had expected (4), and limits how far it can move at once (5).

Five models take part:

    policy          initialised from SFT                  trained
    average         initialised from SFT                  moving average of policy; it is saved
    ref             the SFT model                         frozen
    reward_model    from reward.py                        frozen
    value_fn        initialised from the reward model     trained

Each iteration has five parts:

1 sample       The policy answers a batch of prompts.
2 score        The reward model scores whole answers; policy, ref and value_fn are evaluated at
               every token of them.
3 rewards      Every token costs beta (logp - ref_logp); the last one also receives the score.
4 advantages   GAE without discounting, whitened over the batch (lm-human-preferences whitens over
               each minibatch; the paper does not say).
5 update       One pass over minibatches with the clipped policy loss and the value loss.

    python ppo.py            reads out/sft.pt and out/reward.pt, writes out/ppo.pt
    python ppo.py --ptx 1    adds pretraining gradients (PPO-ptx), writes out/ppo_ptx.pt

To use prompts or documents of your own, see docs/using.md.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.batches import (apply_in_batches, encode_fitting_prompts, logprobs_in_batches, pack,
                          sample_windows)
from data.files import is_small_world, read_documents, read_prompts
from generate import watch
from model import last_index, masked_mean, sample, token_logprobs
from pretrain import lm_loss
from reward import load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_adam, scale_lr
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out: policy and reference
    prompts: int | str = 5000      # how many of the small world, or a file; paper 31,144
    documents: int | str = 2000    # for --ptx: documents of the kind used in pretraining, or a file
    iterations: int = 40           # paper 500
    episodes: int = 256            # responses per iteration; paper 512
    minibatch: int = 64            # episodes per optimizer step; paper 64
    max_new_tokens: int = 48       # longest response
    missing_eos_score: float = -3.0        # score of a response without end-of-text token
    beta: float = 0.1              # KL penalty; paper 0.02
    ptx: float = 0.0               # weight of the pretraining loss; paper 27.8
    lam: float = 0.95              # of GAE; not given in the paper
    clip: float = 0.2              # of the ratio; paper 0.2
    value_clip: float = 0.2        # of the value, in units of score; not given in the paper
    lr: float = 2e-4               # of the policy; the paper prints its sweep, 2.55e-6 to 2.55e-5
    value_lr: float = 1e-3         # of the value function; paper 9e-6
    ema: float = 0.95              # decay of the averaged weights; paper 0.992


# --- rewards (3) ----------------------------------------------------------------------------------
# Action t is the choice of tokens[:, t+1], so everything about actions has one column less:
#
#     tokens                  x0   x1   y0   y1   eos  pad     (B, T)
#     chosen by action             a0   a1   a2   a3   a4      (B, T-1)
#     mask                         0    1    1    1    0       (B, T-1)


def shaped_rewards(score, logp, ref_logp, mask, beta):
    """-beta (logp - ref_logp) at every action, plus the score at the last one (eq. 2); 0 outside
    the mask.  (B,), three (B, T-1) -> (B, T-1)

    Since y ~ policy, the expected sum of logp - ref_logp over a response is KL(policy || ref).
    """
    assert logp.shape == ref_logp.shape == mask.shape and score.shape == mask.shape[:1]
    reward = -beta * (logp - ref_logp) * mask
    reward[torch.arange(len(mask), device=mask.device), last_index(mask)] += score
    return reward


# --- advantages (4) -------------------------------------------------------------------------------


def gae(reward, value, mask, gamma, lam):
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), 0 outside the mask.
    Three (B, T-1) -> advantages, returns (B, T-1)

        A_t = sum over l of (gamma lam)^l delta_{t+l} = delta_t + gamma lam A_{t+1}
        delta_t = r_t + gamma V_{t+1} - V_t,    V = 0 after the last action
        return_t = A_t + V_t, the target of the value function (not in eq. 16)
    """
    assert reward.shape == value.shape == mask.shape
    value = value * mask
    adv = torch.zeros_like(reward)
    next_adv = torch.zeros_like(reward[:, 0])
    next_value = torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * next_value - value[:, t]
        adv[:, t] = (delta + gamma * lam * next_adv) * mask[:, t]
        next_adv = adv[:, t]
        next_value = value[:, t]
    return adv, adv + value


def whiten(x, mask):
    """(x - mean) / sqrt(population variance + 1e-8) over the mask, else 0.  (B, T-1) -> (B, T-1)"""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


# --- losses of the update (5) ---------------------------------------------------------------------


def k3(log_ratio):
    """Schulman's k3 (joschu.net/blog/kl-approx.html) of log(p / q): its mean over samples of p
    estimates KL(p || q). It is never negative and, for similar p and q, has less variance than the
    log-ratio.  (B, T-1) -> (B, T-1)"""
    return torch.exp(-log_ratio) - 1 + log_ratio


def policy_loss(logp, old_logp, adv, mask, clip):
    """PPO's clipped objective (arXiv 1707.06347, eq. 7), negated.  Four (B, T-1) -> loss (), stats

        E[ min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) ],    ratio = pi / pi_old
    """
    assert logp.shape == old_logp.shape == adv.shape == mask.shape
    log_ratio = (logp - old_logp) * mask                 # masked before exp, against overflow
    ratio = log_ratio.exp()
    unclipped = ratio * adv
    clipped = ratio.clamp(1 - clip, 1 + clip) * adv
    loss = -masked_mean(torch.minimum(unclipped, clipped), mask)
    with torch.no_grad():
        # y ~ old, so p = old, q = new in k3: an estimate of KL(old || new)
        stats = dict(clip_fraction=masked_mean((clipped < unclipped).float(), mask),
                     approx_kl=masked_mean(k3(-log_ratio), mask))
    return loss, stats


def value_loss(value, old_value, ret, mask, clip):
    """lm-human-preferences; not in the InstructGPT, PPO and GAE papers.  Four (B, T-1) -> ()

        0.5 E[ max((V - ret)^2, (V_clipped - ret)^2) ],
        V_clipped = old_value + clip(V - old_value, -clip, clip)
    """
    assert value.shape == old_value.shape == ret.shape == mask.shape
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    error = torch.maximum((value - ret) ** 2, (clipped - ret) ** 2)
    return 0.5 * masked_mean(error, mask)


# --- a batch of episodes (1 to 4) -----------------------------------------------------------------


class Rollout(NamedTuple):
    """What the update needs of B episodes, a prompt and a response each."""
    tokens: Tensor          # (B, T)    prompt, response, padding
    mask: Tensor            # (B, T-1)  1 on the actions of the response, eos included
    old_logprobs: Tensor    # (B, T-1)  log policy(action), before the update
    old_values: Tensor      # (B, T-1)  value of the state before the action, before the update
    advantages: Tensor      # (B, T-1)  whitened
    returns: Tensor         # (B, T-1)  target of the value function

    def select(self, rows):
        return Rollout(*[tensor[rows] for tensor in self])


@torch.no_grad()
def rollout(config, policy, ref, value_fn, score_fn, prompts, eos):
    """Steps 1 to 4 for a list of prompts (token ids). score_fn: tokens, response mask (B, T) ->
    scores (B,). -> Rollout, stats {name: ()}"""
    # 1 sample
    tokens, response_mask = sample(policy, prompts, config.max_new_tokens, eos=eos)
    mask = response_mask[:, 1:]

    # 2 score
    scores = apply_in_batches(score_fn, tokens, response_mask)
    logprobs = logprobs_in_batches(policy, tokens, response_mask)
    ref_logprobs = logprobs_in_batches(ref, tokens, response_mask)
    values = apply_in_batches(lambda tokens, _: value_fn(tokens)[:, :-1], tokens, response_mask)
    # differs from the paper: a response that does not end gets a fixed low score
    ended = ((tokens == eos) * response_mask).sum(dim=1) > 0
    scores = torch.where(ended, scores, config.missing_eos_score)

    # 3 rewards
    rewards = shaped_rewards(scores, logprobs, ref_logprobs, mask, config.beta)

    # 4 advantages
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=config.lam)
    advantages = whiten(advantages, mask)

    stats = rollout_stats(scores, ended, logprobs, ref_logprobs, values, returns, mask)
    return Rollout(tokens, mask, logprobs, values, advantages, returns), stats


def rollout_stats(scores, ended, logprobs, ref_logprobs, values, returns, mask):
    """For the log. score includes missing_eos_score. Since y ~ policy, kl and kl3 both estimate
    KL(policy || ref) per response."""
    log_ratio = (logprobs - ref_logprobs) * mask
    return_variance = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    value_error = masked_mean((returns - values) ** 2, mask)
    return dict(score=scores.mean(), ended=ended.float().mean(), length=mask.sum(dim=1).mean(),
                kl=log_ratio.sum(dim=1).mean(),
                kl3=k3(log_ratio).sum(dim=1).mean(),
                entropy=-masked_mean(logprobs, mask),
                explained_variance=1 - value_error / return_variance.clamp(min=1e-8))


# --- update (5) -----------------------------------------------------------------------------------


def update_policy(config, policy, optimizer, minibatch, text):
    """One optimizer step. text: windows of pretraining text (tokens, mask), or None.
    -> stats {name: ()}"""
    logprobs = token_logprobs(policy(minibatch.tokens), minibatch.tokens)
    loss, stats = policy_loss(logprobs, minibatch.old_logprobs, minibatch.advantages,
                              minibatch.mask, config.clip)
    stats["policy_loss"] = loss.detach()
    if text is not None:                                                # second term of eq. 2
        # differs from the paper: both terms are means over tokens and advantages are whitened, so
        # ptx is not comparable to the paper's 27.8
        tokens, mask = text
        ptx_loss = lm_loss(policy(tokens), tokens, mask)
        stats["ptx_loss"] = ptx_loss.detach()
        loss = loss + config.ptx * ptx_loss
    loss.backward()
    stats["grad_norm"] = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return stats


def update_value_fn(config, value_fn, optimizer, minibatch):
    """One optimizer step. -> stats {name: ()}"""
    values = value_fn(minibatch.tokens)[:, :-1]
    loss = value_loss(values, minibatch.old_values, minibatch.returns, minibatch.mask,
                      config.value_clip)
    loss.backward()
    nn.utils.clip_grad_norm_(value_fn.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return dict(value_loss=loss.detach())


@torch.no_grad()
def update_average(average, policy, decay):
    """average <- decay average + (1 - decay) policy, here after every optimizer step (appendix C.4,
    which does not say how often)"""
    for a, p in zip(average.parameters(), policy.parameters()):
        a.lerp_(p, 1 - decay)


# --- main -----------------------------------------------------------------------------------------


def train(config, policy, value_fn, score_fn, tokenizer, device):
    """score_fn: tokens, response mask (B, T) -> scores (B,); the reward model's or any other."""
    # policies are loaded in evaluation mode: no dropout in the ratio
    ref = copy.deepcopy(policy).requires_grad_(False)
    average = copy.deepcopy(policy).requires_grad_(False)
    policy_adam = make_adam(policy.parameters(), config.lr)
    value_adam = make_adam(value_fn.parameters(), config.value_lr)
    T = policy.config.block_size
    prompts = read_prompts(config.prompts, "train", config.seed)
    prompts = encode_fitting_prompts(tokenizer, prompts, T - config.max_new_tokens)
    watched_prompts = []
    if is_small_world(config.prompts):
        watched_prompts = read_prompts(200, "valid", config.seed)
    if config.ptx:
        documents = pack(tokenizer, read_documents(config.documents, config.seed)).to(device)

    run = Run(config, "ppo_ptx" if config.ptx else "ppo", config.iterations, policy=policy,
              value_fn=value_fn, average=average, policy_adam=policy_adam, value_adam=value_adam)
    for iteration in range(run.first_step, config.iterations):
        batch_prompts = [prompts[i] for i in torch.randint(len(prompts), (config.episodes,))]
        batch, metrics = rollout(config, policy, ref, value_fn, score_fn, batch_prompts,
                                 tokenizer.eos)

        scale_lr(policy_adam, min(1, 0.1 + 0.9 * iteration / 10))                    # warm-up
        # in the first minibatch the ratio is 1; the clip matters from the second one on
        for rows in torch.randperm(config.episodes).split(config.minibatch):
            minibatch = batch.select(rows)
            text = None
            if config.ptx:
                # differs from the paper: one context of text per 8 episodes, not 8 per episode
                text = sample_windows(documents, (len(rows) + 7) // 8, T)
            # the log keeps the statistics of the last minibatch
            metrics |= update_policy(config, policy, policy_adam, minibatch, text)
            metrics |= update_value_fn(config, value_fn, value_adam, minibatch)
            update_average(average, policy, config.ema)
        if iteration % 5 == 4:
            metrics |= watch(policy, tokenizer, watched_prompts, config.max_new_tokens, config.seed)
        run.log(iteration, **metrics)
        if iteration % 10 == 9:
            run.save(iteration)

    # score and KL of the saved model, on training prompts
    _, stats = rollout(config, average, ref, value_fn, score_fn, prompts[:256], tokenizer.eos)
    run.finish(average, tokenizer, score=stats["score"], kl=stats["kl"],
               **watch(average, tokenizer, watched_prompts, config.max_new_tokens, config.seed))


def main():
    config = read_flags(__doc__, Config)
    check(config.minibatch <= config.episodes, f"--minibatch {config.minibatch} must not be larger "
          f"than --episodes {config.episodes}")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    value_fn = load_reward(f"{config.out}/reward.pt", device, (policy, tokenizer))
    reward_model = load_reward(f"{config.out}/reward.pt", device).requires_grad_(False)
    train(config, policy, value_fn, reward_model.score_responses, tokenizer, device)


if __name__ == "__main__":
    main()
