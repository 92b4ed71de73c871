"""RL on worked sums: GRPO paid for the final answer alone (RLVR), or for every step.

A model that writes down its steps can be rewarded for the final answer alone: the steps that lead
to correct answers become more likely, although nothing checks them (DeepSeek-R1, 2501.12948).
With process supervision each step has a reward. The rewards of all steps of a group are normalised
together, and a token's advantage is the sum over the steps that end at or after it (2402.03300,
section 4.1.3):

    A_t = sum over steps ending at t or later of (r - mean r) / std r

    python -m later.reasoning                   1 if the final number is correct; out/chains.pt
                                                (later/chains.py) -> out/reasoning.pt
    python -m later.reasoning --reward steps    1 per step, until the first wrong one
    python -m later.reasoning --reward prm      the probabilities of out/prm.pt (later/process.py)
"""

from dataclasses import dataclass

import torch

from later import grpo
from later.chains import is_answer_correct, label_answer, make_sums, step_ends
from later.grpo import train
from later.process import step_probabilities
from later.verifiers import make_score_fn
from reward import load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config(grpo.Config):
    init_from: str = "chains"      # checkpoint in --out: policy and reference
    name: str = "reasoning"        # checkpoint in --out that is written
    reward: str = "final"          # final, steps or prm
    max_new_tokens: int = 64       # longest answer


def reward_steps(problem, answer, ended):
    """1 for each step before the first wrong one, then 0, so a repeated step earns nothing."""
    rewards, reward = [], 1.0
    for correct in label_answer(problem, answer, ended):
        reward *= correct
        rewards.append(reward)
    return rewards


def step_advantages(rewards, ends):
    """The equation above, for the answers of one group.  rewards (G, T-1), 0 outside of ends;
    ends (G, T-1), 1 where a step ends -> (G, T-1)"""
    n = ends.sum().clamp(min=1)
    mean = rewards.sum() / n
    std = (((rewards - mean) * ends).square().sum() / n).sqrt()
    normalised = (rewards - mean) / (std + 1e-4) * ends
    return normalised.flip(1).cumsum(dim=1).flip(1)


def score_steps(prm, problems, tokens, response_mask, tokenizer):
    """What each step earns, at the action of its last token. prm: None for the true labels
    -> rewards, ends (B, T-1)"""
    examples, ends_of_steps, rewards_of_steps = [], [], []
    for problem, row, row_mask in zip(problems, tokens, response_mask):
        ids = row[row_mask > 0].tolist()
        answer, ended = tokenizer.decode(ids), ids[-1] == tokenizer.eos
        examples.append((row[:row_mask.argmax()].tolist(), ids))
        ends_of_steps.append(step_ends(tokenizer, ids))
        rewards_of_steps.append(reward_steps(problem, answer, ended))
    if prm is not None:
        rewards_of_steps = step_probabilities(prm, examples, ends_of_steps)

    rewards, ends = torch.zeros_like(response_mask), torch.zeros_like(response_mask)
    for b, (prompt, _) in enumerate(examples):
        for end, reward in zip(ends_of_steps[b], rewards_of_steps[b]):
            rewards[b, len(prompt) + end] = reward
            ends[b, len(prompt) + end] = 1
    return rewards[:, 1:], ends[:, 1:]


def main():
    config = read_flags(__doc__, Config)
    check(config.reward in ("final", "steps", "prm"), "--reward must be final, steps or prm")
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    sums = make_sums(1000, "train", config.seed)
    prm = None
    if config.reward == "prm":
        prm = load_reward(f"{config.out}/prm.pt", device, (policy, tokenizer))
        prm.requires_grad_(False)

    def reward_and_normalise_steps(batch, tokens, response_mask):
        problems = []
        for problem in batch:
            problems += [problem] * config.group
        rewards, ends = score_steps(prm, problems, tokens, response_mask, tokenizer)
        advantages = []
        for group in zip(rewards.split(config.group), ends.split(config.group)):
            advantages.append(step_advantages(*group))
        return torch.cat(advantages), rewards.sum() / ends.sum().clamp(min=1)

    train(config, policy, sums, make_score_fn(is_answer_correct, sums, tokenizer), tokenizer,
          step_fn=None if config.reward == "final" else reward_and_normalise_steps)


if __name__ == "__main__":
    main()
