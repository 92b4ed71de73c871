"""PPO on several reward models at once, in the place of one.

    python experiments/ensemble.py --how mean      out/sft.pt, out/reward-*.pt -> out/ppo.pt

one         the first of them alone
mean        their mean
worst       the lowest (arXiv 2310.02743, worst-case optimisation)
variance    mean minus variance (the same, uncertainty-weighted optimisation)
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tools               # before torch: it says how torch's threads wait
import torch

import ppo
from reward import load_reward, score
from tools.device import start
from tools.flags import check, read_flags, run


@dataclass(frozen=True)
class Config(ppo.Config):
    how: str = "mean"              # their scores become one: one, mean, worst or variance


COMBINE = dict(
    one=lambda scores: scores[0],
    mean=lambda scores: scores.mean(dim=0),
    worst=lambda scores: scores.amin(dim=0),
    variance=lambda scores: scores.mean(dim=0) - scores.var(dim=0, unbiased=False))


def make_judge(models, how):
    """-> what ppo.rollout asks, by (models, B) scores of the same answers"""
    def judge(reward_model, tokens, response, ended, missing_end):
        scores = torch.stack([score(model(tokens), response) for model in models])
        return torch.where(ended > 0, COMBINE[how](scores), missing_end)
    return judge


def load_models(folder, how, device="cpu"):
    """Every reward-*.pt in the folder, for a way to combine them that there is."""
    check(how in COMBINE, f"--how {how}: {', '.join(COMBINE)}")
    paths = sorted(Path(folder).glob("reward-*.pt"))
    check(paths, f"{folder} holds no reward-*.pt; bash experiments/remedies.sh makes them")
    return [load_reward(path, device) for path in paths]


def main():
    config = read_flags(__doc__, Config)
    device, _ = start(config)
    ppo.main(config, make_judge(load_models(config.out, config.how, device), config.how))


if __name__ == "__main__":
    run(main)
