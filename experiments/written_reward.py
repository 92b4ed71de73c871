"""PPO on a reward that somebody wrote down, in the place of the reward model.

    python experiments/written_reward.py --reward banana

banana      how often the answer says "banana": what is optimised is what is got
gold        the true utility: what PPO could reach if labelers were perfect and never tired
labelers    one look by one labeler at each answer: rewards without a model in between
one_token   the reward model's score whether or not an answer ends (experiments/closed_form.sh)

The KL penalty and all else are ppo.py's, but that the values of "banana" begin at 0: of what it pays
the reward model's scores say nothing.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait
import torch

import ppo
from data.files import read_prompts
from data.world.labelers import make_labelers
from data.world.utility import utility
from model import load_gpt
from reward import RewardModel, load_reward, score
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config(ppo.Config):
    reward: str = "banana"         # banana, gold, labelers or one_token


def count_bananas(prompt, answer, ended):
    return answer.lower().count("banana")


def look_once(prompt, answer, ended, labelers=make_labelers("train")):
    rng = random.Random(torch.randint(2 ** 62, ()).item())
    return rng.choice(labelers).perceive(prompt, answer, ended, rng)


def score_any(reward_model, tokens, response, ended, missing_end):
    """The judge of `one_token`."""
    return score(reward_model(tokens), response)


def begin_at_0(path, device):
    """A value function in place of the reward model's: its trunk under a head that knows nothing"""
    return RewardModel(load_reward(path, device).gpt, likelihood=0.0).to(device)


def make_judge(function, tokenizer, prompts):
    """(prompt, answer, ended) -> reward  becomes what ppo.rollout asks. prompts: {text: prompt}"""
    def judge(reward_model, tokens, response, ended, missing_end):
        rewards = []
        for row, mask, end in zip(tokens, response, ended):
            prompt, answer = (tokenizer.decode(row[kept]) for kept in
                              ((mask == 0) & (torch.arange(len(row), device=row.device)
                                              < mask.argmax()), mask > 0))
            rewards.append(function(prompts[prompt.removesuffix("\n")], answer, bool(end)))
        return torch.tensor(rewards, dtype=torch.float32, device=tokens.device)
    return judge


def main():
    written = {"banana": count_bananas, "gold": gold, "labelers": look_once, "one_token": None}
    config = read_flags(__doc__, Config)
    check(config.reward in written, f"--reward {config.reward}: {', '.join(written)}")
    if config.reward == "one_token":
        return ppo.main(config, score_any)
    _, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt")
    prompts = {p.text: p for p in read_prompts(config.prompts, "train", config.seed)}
    ppo.main(config, make_judge(written[config.reward], tokenizer, prompts),
             begin_at_0 if config.reward == "banana" else None)


if __name__ == "__main__":
    run(main)
