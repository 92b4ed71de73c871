"""A reward model that also reads the answer's log-likelihood.

    score(x, y) = head(x, y) + lambda log p(y | x)

p is the language model that the reward model was before: its hidden states and SFT's unembedding.
It knows which word is out of place long before a new head has learned it from rankings. The price:
PPO's optimum for lambda log p alone is proportional to ref^(1 + lambda / beta), if p = ref, which
is what sampling at a lower temperature does. So a gain at temperature 1 may be one of decoding, and
reading.sh also compares greedy answers.

    python -m experiments.likelihood reward    reward.py with this reward model; its flags
    python -m experiments.likelihood ppo       ppo.py with it
    python -m experiments.likelihood eval      eval.py with it
"""

import importlib
import sys

import torch
from torch import nn
from torch.nn import functional as F

import reward
from model import token_logprobs


class LikelihoodReward(reward.RewardModel):
    """A scalar head plus lambda times the log-probability of all tokens so far. The prompt's part
    is the same for all answers, so eq. 1 does not depend on it. lambda is trained."""

    def __init__(self, gpt):
        super().__init__(gpt)
        self.weight = nn.Parameter(torch.tensor(0.3))         # lambda

    def forward(self, tokens):
        """(B, T) -> (B, T)"""
        hidden = self.gpt.hidden(tokens)
        logp = token_logprobs(self.gpt.lm_head(hidden), tokens)              # (B, T-1)
        logp_so_far = F.pad(logp.cumsum(dim=1), (1, 0))      # (B, T): 0, then tokens 1 to t
        return self.head(hidden).squeeze(-1) + self.weight * logp_so_far


def main():
    if sys.argv[1:2] not in (["reward"], ["ppo"], ["eval"]):
        sys.exit(__doc__)
    reward.RewardModel = LikelihoodReward        # reward.main and load_reward make this class now
    importlib.import_module(sys.argv.pop(1)).main()


if __name__ == "__main__":
    main()
