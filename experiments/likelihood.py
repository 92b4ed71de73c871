"""A reward model that also reads the answer's log-likelihood, and PPO on it.

    score(x, y) = head(x, y) + lambda log p(y | x)

p is the language model that the reward model was before: its hidden states and SFT's unembedding,
which the plain reward model throws away. A language model knows which word is out of place long
before a new head has learned it from rankings, so this score tells correct answers from wrong ones
sooner. The price: PPO's optimum for lambda log p alone is proportional to ref^(1 + lambda / beta),
if p = ref, and that is what sampling at a lower temperature does. So a gain at temperature 1 may be
one of decoding. bash experiments/likelihood.sh compares both reward models at temperature 1 and
greedily.

    python -m experiments.likelihood      out/sft.pt, out/comparisons.jsonl -> out/likelihood.pt,
                                          out/ppo.pt
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

import ppo
import reward
from data.batches import batch_comparisons, collate
from data.comparisons import flatten, label_accuracy, read_comparisons, split_by_prompt
from model import token_logprobs
from reward import RewardModel, ranking_loss, score, score_all
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import read_flags
from tools.optimizers import cosine, make_adam, scale_lr
from tools.training import Run


class LikelihoodReward(RewardModel):
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


def fit(config, model, tokenizer, device):
    """reward.py's training. config: reward.Config"""
    train, valid = read_comparisons(f"{config.out}/comparisons.jsonl", tokenizer,
                                    model.gpt.config.block_size)
    adam = make_adam(model.parameters(), config.lr)
    batches = batch_comparisons(train, config.batch)
    run = Run(config, "likelihood", len(batches))
    for step, rows in enumerate(batches):
        tokens, mask = collate(flatten([train[i] for i in rows]), device)        # (B K, T)
        scores = score(model(tokens), mask).view(len(rows), -1)                  # (B, K)
        loss = ranking_loss(scores)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, cosine(step / len(batches)))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss)
    reward.shift_bias(config, model, tokenizer, train, device)
    scores = split_by_prompt(score_all(model, flatten(valid), device), valid)
    run.finish(model, tokenizer, accuracy=label_accuracy(scores), weight=model.weight)


def main():
    config = read_flags(__doc__, ppo.Config)
    device = setup(config)
    policy, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    model = LikelihoodReward(copy.deepcopy(policy)).to(device)
    fit(reward.Config(out=config.out, seed=config.seed), model, tokenizer, device)
    value_fn = copy.deepcopy(model)
    model.requires_grad_(False)

    def score_fn(tokens, response_mask):
        return score(model(tokens), response_mask)
    ppo.train(config, policy, value_fn, score_fn, tokenizer, device)


if __name__ == "__main__":
    main()
