"""How close do PPO and DPO get to the closed-form optimum of their objective?

    E[ r(x, y) ] - beta KL(pi || ref)    is maximal at    pi* = ref exp(r / beta) / Z     (eq. 4)

(DPO, arXiv 2305.18290). If an answer is a single token, all answers can be enumerated and pi*
computed. PPO receives the reward model's score of the token it samples. DPO receives pairs of
sampled tokens, labelled with probability sigmoid(r_1 - r_2), as the Bradley-Terry model assumes.

    python -m experiments.closed_form --beta 0.3     out/sft.pt, out/reward.pt -> out/results.json
"""

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import trange

import ppo
from data.batches import collate, encode_prompt
from data.world.text import make_prompts
from dpo import dpo_loss
from model import sample, token_logprobs
from reward import load_reward, score_all
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


def every_reward(reward_model, prompts, vocab_size, device):
    """r(x, y) of every token y as the whole answer. -> (B, V)"""
    examples = []
    for prompt in prompts:
        examples += [(prompt, [token]) for token in range(vocab_size)]
    return score_all(reward_model, examples, device).view(len(prompts), vocab_size)


# --- two ways towards it --------------------------------------------------------------------------


@torch.no_grad()
def rollout(config, policy, ref, value_fn, rewards, prompts, rows):
    """Steps 1 to 4 of ppo.py for the prompts `rows`; but there an answer without end-of-text token
    gets a fixed score. rewards: (prompts, V) -> ppo.Rollout"""
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
    """ppo.train, but yields (iteration, averaged policy) after each iteration."""
    ref = copy.deepcopy(policy).requires_grad_(False)
    average = copy.deepcopy(policy).requires_grad_(False)
    policy_adam = make_adam(policy.parameters(), config.lr)
    value_adam = make_adam(value_fn.parameters(), config.value_lr)
    for iteration in trange(1, config.iterations + 1, desc="ppo"):
        rows = torch.randint(len(prompts), (config.episodes,))
        batch = rollout(config, policy, ref, value_fn, rewards, prompts, rows)
        scale_lr(policy_adam, min(1, iteration / 10))
        for minibatch_rows in torch.randperm(config.episodes).split(config.minibatch):
            minibatch = batch.select(minibatch_rows)
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
        first, second = rewards[rows].gather(1, pairs).unbind(dim=1)
        first_wins = torch.rand_like(first) < torch.sigmoid(first - second)
        pairs = torch.where(first_wins[:, None], pairs, pairs.flip(1))           # winners first
        pi_w, pi_l = next_token_logp(policy, [prompts[i] for i in rows]).gather(1, pairs).unbind(1)
        ref_w, ref_l = ref_logp[rows].gather(1, pairs).unbind(1)
        loss, _ = dpo_loss(pi_w, pi_l, ref_w, ref_l, config.beta)
        loss.backward()
        scale_lr(adam, 1 - step / config.dpo_steps)
        adam.step()
        adam.zero_grad()


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    check(config.beta > 0, "--beta must be positive")
    check(not Path(f"{config.out}/answers.jsonl").is_file(), f"{config.out} has eval.py's results; "
          "copy sft.pt and reward.pt into a folder of their own, as closed_form.sh does")
    sft, tokenizer = load_gpt(f"{config.out}/sft.pt", device)
    value_fn = load_reward(f"{config.out}/reward.pt", device, (sft, tokenizer))
    prompts = []
    for prompt in make_prompts(config.prompts, "train", config.seed):
        prompts.append(encode_prompt(tokenizer, prompt.text))
    rewards = every_reward(value_fn, prompts, tokenizer.vocab_size, device)
    ref_logp = next_token_logp(sft, prompts).detach()
    best_logp = closed_form(ref_logp, rewards, config.beta)
    measured = {}

    def measure(name, policy):
        distance = kl(next_token_logp(policy, prompts), best_logp).mean().item()
        check(math.isfinite(distance), f"{name}: the distance is {distance}; try a lower --lr")
        measured[name] = dict(distance=distance)
        print(f"KL({name} || pi*) = {distance:.3f}")
    measure("sft", sft)
    policy = copy.deepcopy(sft)
    for iteration, average in train_ppo(config, policy, value_fn, rewards, prompts):
        if iteration in (10, 40, 160):
            measure(f"ppo-{iteration}", average)
    policy = copy.deepcopy(sft)
    train_dpo(config, policy, ref_logp, rewards, prompts)
    measure("dpo", policy)
    with atomic_write(f"{config.out}/results.json") as file:
        json.dump(measured, file, indent=2)


if __name__ == "__main__":
    main()
