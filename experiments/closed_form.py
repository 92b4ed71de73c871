"""How close do PPO and DPO get to the closed-form optimum of their objective?

    E[ r(x, y) ] - beta KL(pi || ref)    is maximal at    pi* = ref exp(r / beta) / Z
                                                                        (arXiv 2305.18290, eq. 4)

If an answer is a single token, all answers can be enumerated and pi* computed. PPO receives the
reward model's score of the token it samples. DPO receives pairs of sampled tokens, labelled with
probability sigmoid(r_1 - r_2), as the Bradley-Terry model assumes. So both have the same optimum.

    python -m experiments.closed_form --beta 0.3     out/sft.pt, out/reward.pt -> out/optimum.json
"""

import copy
import json
from dataclasses import dataclass

import torch
from tqdm import trange

import ppo
from data.batches import collate, encode_prompt
from data.world.text import make_prompts
from dpo import dpo_loss
from model import sample, token_logprobs
from reward import load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import atomic_write, check, read_flags
from tools.optimizers import make_adam, scale_lr


@dataclass(frozen=True)
class Config(ppo.Config):
    prompts: int = 60              # training prompts, also to measure on
    iterations: int = 160          # of PPO; measured after 10, 40 and 160
    dpo_steps: int = 400           # of 64 pairs each
    dpo_lr: float = 5e-5           # decays to 0


# --- the optimum ----------------------------------------------------------------------------------


def closed_form(ref_logp, reward, beta):
    """log pi* = log(ref exp(reward / beta) / Z).  (B, V) -> (B, V)"""
    return (ref_logp + reward / beta).log_softmax(dim=-1)


def kl(logp, logq):
    """KL(p || q) in nats.  Two (B, V) -> (B,)"""
    return (logp.exp() * (logp - logq)).sum(dim=-1)


def next_token_logp(model, prompts):
    """log pi(y | x) of every token y. prompts: lists of token ids -> (B, V)"""
    tokens, _ = collate([(prompt, []) for prompt in prompts], model.lm_head.weight.device)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return model(tokens)[torch.arange(len(prompts)), last].log_softmax(dim=-1)


@torch.no_grad()
def every_reward(reward_model, prompts, vocab_size, device):
    """r(x, y) of every token y as the whole answer. -> (B, V)"""
    answers = torch.arange(vocab_size, device=device)[:, None]
    rows = []
    for prompt in prompts:
        repeated = torch.tensor(prompt, device=device).expand(vocab_size, -1)
        rows.append(reward_model(torch.cat([repeated, answers], dim=1))[:, -1])
    return torch.stack(rows)


@torch.no_grad()
def measure(name, policy, prompts, ref_logp, reward, beta):
    """-> {"distance": KL(pi || pi*), "kl": KL(pi || ref), "reward": its mean}. The objective of pi*
    exceeds that of pi by beta * distance."""
    best = closed_form(ref_logp, reward, beta)
    logp = next_token_logp(policy, prompts) if policy else best
    measured = dict(distance=kl(logp, best).mean().item(), kl=kl(logp, ref_logp).mean().item(),
                    reward=(logp.exp() * reward).sum(dim=-1).mean().item())
    print(f"{name:8}", ", ".join(f"{key} {value:.3f}" for key, value in measured.items()))
    return measured


# --- two ways towards it --------------------------------------------------------------------------


@torch.no_grad()
def rollout(config, policy, ref, value_fn, rewards, prompts, rows):
    """Steps 1 to 4 of ppo.py for the prompts `rows`. Unlike there, an answer without end-of-text
    token is a whole answer. rewards: (prompts, V) -> ppo.Rollout"""
    tokens, response_mask = sample(policy, [prompts[i] for i in rows], max_new_tokens=1)
    mask = response_mask[:, 1:]
    answers = (tokens * response_mask).sum(dim=1).long()                         # (B,)
    logprobs = token_logprobs(policy(tokens), tokens)
    ref_logprobs = token_logprobs(ref(tokens), tokens)
    values = value_fn(tokens)[:, :-1]
    shaped = ppo.shaped_rewards(rewards[rows, answers], logprobs, ref_logprobs, mask, config.beta)
    advantages, returns = ppo.gae(shaped, values, mask, gamma=1.0, lam=config.lam)
    return ppo.Rollout(tokens, mask, logprobs, values, ppo.whiten(advantages, mask), returns)


def train_ppo(config, policy, value_fn, rewards, prompts):
    """Yields (iteration, averaged policy) after each iteration."""
    ref = copy.deepcopy(policy).requires_grad_(False)
    average = copy.deepcopy(policy).requires_grad_(False)
    policy_adam = make_adam(policy.parameters(), config.lr)
    value_adam = make_adam(value_fn.parameters(), config.value_lr)
    for iteration in trange(1, config.iterations + 1, desc="ppo"):
        rows = torch.randint(len(prompts), (config.episodes,))
        batch = rollout(config, policy, ref, value_fn, rewards, prompts, rows)
        scale_lr(policy_adam, min(1, iteration / 10))
        for minibatch_rows in torch.randperm(config.episodes).split(config.minibatch):
            minibatch = ppo.Rollout(*(x[minibatch_rows] for x in batch))
            ppo.update_policy(config, policy, policy_adam, minibatch, None)
            ppo.update_value_fn(config, value_fn, value_adam, minibatch)
            ppo.update_average(average, policy, config.ema)
        yield iteration, average


def train_dpo(config, policy, ref_logp, rewards, prompts, batch_size=64):
    """Pairs of tokens that the SFT model samples, labelled by Bradley-Terry."""
    adam = make_adam(policy.parameters(), config.dpo_lr)
    for step in trange(config.dpo_steps, desc="dpo"):
        rows = torch.randint(len(prompts), (batch_size,), device=ref_logp.device)
        pairs = ref_logp[rows].exp().multinomial(2, replacement=True)            # (B, 2)
        r = rewards[rows].gather(1, pairs)
        first_wins = torch.rand_like(r[:, 0]) < torch.sigmoid(r[:, 0] - r[:, 1])
        w = torch.where(first_wins, pairs[:, 0], pairs[:, 1])
        l = torch.where(first_wins, pairs[:, 1], pairs[:, 0])
        pi = next_token_logp(policy, [prompts[i] for i in rows])                 # (B, V)
        ref = ref_logp[rows]
        loss, _ = dpo_loss(pick(pi, w), pick(pi, l), pick(ref, w), pick(ref, l), config.beta)
        loss.backward()
        scale_lr(adam, 1 - step / config.dpo_steps)
        adam.step()
        adam.zero_grad()


def pick(logp, tokens):
    """(B, V), (B,) -> (B,)"""
    return logp.gather(1, tokens[:, None]).squeeze(1)


def main():
    config = read_flags(__doc__, Config)
    check(config.beta > 0, "--beta must be above 0")
    device = setup(config)
    path = f"{config.out}/sft.pt"
    sft, tokenizer = load_gpt(path, device)
    reward_model = load_reward(f"{config.out}/reward.pt", device)
    prompts = []
    for prompt in make_prompts(config.prompts, "train", config.seed):
        prompts.append(encode_prompt(tokenizer, prompt.text))
    rewards = every_reward(reward_model, prompts, tokenizer.vocab_size, device)
    with torch.no_grad():
        ref_logp = next_token_logp(sft, prompts)
    problem = prompts, ref_logp, rewards, config.beta

    measured = {"pi*": measure("pi*", None, *problem), "sft": measure("sft", sft, *problem)}
    policy, _ = load_gpt(path, device)
    for iteration, average in train_ppo(config, policy, reward_model, rewards, prompts):
        if iteration in (10, 40, 160):
            name = f"ppo-{iteration}"
            measured[name] = measure(name, average, *problem)
    policy, _ = load_gpt(path, device)
    train_dpo(config, policy, ref_logp, rewards, prompts)
    measured["dpo"] = measure("dpo", policy, *problem)
    with atomic_write(f"{config.out}/optimum.json") as file:
        json.dump(measured, file, indent=2)


if __name__ == "__main__":
    main()
