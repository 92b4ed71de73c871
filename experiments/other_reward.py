"""PPO on a reward that is not one reward model's score.

    python -m experiments.other_reward --reward utility      out/sft.pt -> out/ppo.pt

utility     the true utility
labelers    how a random labeler rates the answer
logprob     the log-probability under SFT, which needs no labels
mean        the mean score of the reward models out/reward-*.pt (arXiv 2310.02743)

All else is ppo.py's. For the first three the value function's head starts at 0, since no reward
model predicts these rewards.
"""

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import torch

import ppo
from data.files import is_small_world, read_prompts
from data.world.labelers import make_labelers
from data.world.utility import utility
from dpo import sequence_logprob
from later.verifiers import make_score_fn
from reward import RewardModel, load_reward
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import check, read_flags


@dataclass(frozen=True)
class Config(ppo.Config):
    reward: str = "utility"        # utility, labelers, logprob or mean


def ask_labeler(prompt, answer, ended, labelers=make_labelers("train")):
    rng = random.Random(torch.randint(2 ** 62, ()).item())
    return rng.choice(labelers).perceive(prompt, answer, ended, rng)


WRITTEN = {"utility": utility, "labelers": ask_labeler}


def make_value_fn(policy):
    """Its values start at 0."""
    return RewardModel(copy.deepcopy(policy)).to(policy.lm_head.weight.device).eval()


def score_by_logprob(sft):
    """-> a score_fn of ppo.train"""
    def score_fn(tokens, response_mask):
        with torch.no_grad():
            return sequence_logprob(sft, tokens, response_mask)
    return score_fn


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    policy_path = f"{config.out}/{config.init_from}.pt"
    policy, tokenizer = load_gpt(policy_path, device)
    if config.reward in WRITTEN:
        check(is_small_world(config.prompts),
              f"--reward {config.reward} is known only for prompts of the small world")
        prompts = read_prompts(config.prompts, "train", config.seed)
        score_fn = make_score_fn(WRITTEN[config.reward], prompts, tokenizer)
        value_fn = make_value_fn(policy)
    elif config.reward == "logprob":
        sft, _ = load_gpt(policy_path, device)
        score_fn, value_fn = score_by_logprob(sft), make_value_fn(policy)
    else:
        check(config.reward == "mean", f"there is no --reward {config.reward}; see --help")
        paths = sorted(Path(config.out).glob("reward-*.pt"))
        check(paths, f"{config.out} has no reward-1.pt and so on; see rounds.sh")
        reward_models = [load_reward(path, device, (policy, tokenizer)) for path in paths]
        value_fn = load_reward(paths[0], device)

        def score_fn(tokens, response_mask):
            scores = [model.score_responses(tokens, response_mask) for model in reward_models]
            return torch.stack(scores).mean(dim=0)
    ppo.train(config, policy, value_fn, score_fn, tokenizer, device)


if __name__ == "__main__":
    main()
