"""Step 2b: what people prefer. Fit a scalar to rankings (InstructGPT, 2203.02155, section 3.5).

    loss = -1 / C(K,2)  E[ log sigmoid(r(x, y_w) - r(x, y_l)) ]                             (eq. 1)

(E is over prompts, of the sum over a prompt's pairs; with the factor in front, their mean).

compare.py has asked labelers to rank K answers to each prompt. Here

1 fit          all C(K,2) pairs of a prompt are one element of the batch: K forward passes
2 shift        the bias, so that demonstrations score 0 on average; the loss does not see it

    python reward.py         out/sft.pt, out/comparisons.jsonl -> out/reward.pt

--comparisons takes any file of preferences, --demonstrations one of your own (docs/using.md).
Flags of every training script: --out --seed --device --precision --resume (tools/flags.py).
"""

from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch import nn
from torch.nn import functional as F

from data import comparisons
from data.batches import (batch_prompts, collate, encode_example, flatten, keep_fitting,
                          limit_rows)
from data.comparisons import pair_accuracy, rank_values
from data.files import number_or_file, read_demonstrations
from model import GPT, GPTConfig, last_index, load_gpt, token_logprobs
from tools.checkpoints import load
from tools.device import start
from tools.flags import Training, read_flags, run
from tools.optimizers import cosine, make_muon_and_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Config(Training):
    begin: str = "sft"             # checkpoint in --out that becomes the reward model
    comparisons: str = ""          # another file than comparisons.jsonl in --out
    demonstrations: number_or_file = 500   # score 0 on average; with --comparisons its best answers
    likelihood: bool = True        # add the answer's log-likelihood; paper: no
    epochs: int = 1                # passes over the comparisons; paper 1
    batch: int = 6                 # prompts per step, each with all its pairs; paper 64
    lr: float = 5e-4               # peak learning rate (Adam); paper 9e-6
    muon_lr: float = 0.003         # peak learning rate of the blocks' matrices (Muon)


# --- loss -----------------------------------------------------------------------------------------


def preference_loss(score_w, score_l):
    """-log sigmoid(r_w - r_l), Bradley and Terry's likelihood, the mean over pairs (eq. 1).
    Two of one shape -> ()"""
    return -F.logsigmoid(score_w - score_l).mean()


def ranking_loss(scores):
    """Eq. 1: the mean over all C(K,2) pairs of each prompt; one batch holds them all.
    (B, K), each row best first -> ()"""
    better, worse = torch.combinations(torch.arange(scores.shape[1]), 2).unbind(dim=1)
    return preference_loss(scores[:, better], scores[:, worse])


# --- model ----------------------------------------------------------------------------------------


class RewardModel(nn.Module):
    """A GPT with a scalar head; ppo.py's value function is one too.

    scalar = head(hidden) + likelihood * log p(all tokens so far), the log-probs of its own
    unembedding. A language model knows which word does not belong long before a new head has
    learned to read it off the hidden state. likelihood is trained too. The prompt's share is the
    same for all answers to it, so the loss does not see it.
    """

    def __init__(self, gpt, likelihood=0.3):
        # differs from the paper: the head stands beside the unembedding, not in its place
        # (--no-likelihood is the paper's)
        super().__init__()
        self.gpt = gpt
        self.head = nn.Linear(gpt.config.n_embd, 1)
        # differs from the paper: the head starts at 0; in lm-human-preferences it is drawn
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.likelihood = nn.Parameter(torch.tensor(likelihood), requires_grad=likelihood != 0)

    def forward(self, tokens):
        """(B, T) -> (B, T), a scalar per position."""
        hidden = self.gpt.hidden(tokens)                                         # (B, T, C)
        logp = token_logprobs(self.gpt.lm_head(hidden), tokens)                  # (B, T-1)
        return self.head(hidden).squeeze(-1) + self.likelihood * F.pad(logp.cumsum(dim=1), (1, 0))


def score(per_token, mask):
    """r(x, y): the scalar at the last response token. (B, T), (B, T) -> (B,)"""
    assert per_token.shape == mask.shape
    return per_token.gather(1, last_index(mask)[:, None]).squeeze(1)


# --- scores ---------------------------------------------------------------------------------------


def load_reward(path, device="cpu"):
    """-> RewardModel in evaluation mode, for scoring or as an initial value function"""
    model, _ = load(path, lambda config: RewardModel(GPT(GPTConfig(**config))), device)
    model.likelihood.requires_grad_(model.likelihood.item() != 0)        # a plain head stays plain
    return model


@torch.no_grad()
def score_all(model, examples, device):
    """[(prompt ids, response ids)] -> (N,) scores, in their order; like lengths share a batch."""
    lengths = torch.tensor([len(prompt) + len(response) for prompt, response in examples])
    scores = torch.zeros(len(examples))
    for rows in lengths.argsort(stable=True).split(limit_rows(model.gpt.config)):
        tokens, mask = collate([examples[i] for i in rows])
        scores[rows] = score(model(tokens.to(device)), mask.to(device)).cpu()
    return scores


def measure_accuracy(model, items, device):
    """How often the reward model orders a pair as the label does, and how often "the longer answer
    is better" does, the least that a reward model has to beat."""
    examples = flatten(items)
    counts = [len(responses) for _, responses in items]
    best_first = [rank_values(range(K)) for K in counts]       # 0, -1, ...: best first
    scores = [s.tolist() for s in score_all(model, examples, device).split(counts)]
    longer = pair_accuracy([[len(y) for y in responses] for _, responses in items], best_first)
    return dict(accuracy_labels=pair_accuracy(scores, best_first), longer_is_preferred=longer,
                shorter_is_preferred=1 - longer)


# --- main -----------------------------------------------------------------------------------------


def main():
    config = read_flags(__doc__, Config)
    device, generator = start(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    path = config.comparisons or f"{config.out}/comparisons.jsonl"
    items = comparisons.read(path, tokenizer, gpt.config.block_size)
    train = items["train"]                               # [(prompt, [responses, best first])]
    # differs from the paper: it has the size of the policy, not 6B for every policy
    model = RewardModel(gpt, 0.3 * config.likelihood).to(device)       # evaluation mode: no dropout
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    batches = [rows for _ in range(config.epochs)        # each of prompts with the same K
               for rows in batch_prompts(train, config.batch, generator)]

    steps = Steps(config, "reward")
    for step in steps.upto(len(batches), train, model=model, muon=muon, adam=adam):       # 1 fit
        prompts = [train[i] for i in batches[step]]
        tokens, mask = collate(flatten(prompts))
        scores = score(model(tokens.to(device)), mask.to(device))
        scores = scores.view(len(prompts), -1)                                # (B, K), best first
        loss = ranking_loss(scores)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * cosine(step / len(batches)))
        set_lr(adam, config.lr * cosine(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        best_wins = (scores[:, :1] > scores[:, 1:]).float().mean()    # over the other answers
        steps.log(step, loss=loss, norm=norm, best_wins=best_wins)

    demonstrations = find_demonstrations(config, tokenizer, train, gpt.config.block_size)
    with torch.no_grad():                                                                 # 2 shift
        model.head.bias -= score_all(model, demonstrations, device).mean()
    found = measure_accuracy(model, items["valid"], device)
    steps.end(model, gpt.config, tokenizer,
              f"right on {found['accuracy_labels']:.1%} of held-out labels (the longer answer: "
              f"{found['longer_is_preferred']:.1%})", **found, likelihood=model.likelihood)


def find_demonstrations(config, tokenizer, train, block_size):
    """-> [(prompt ids, response ids)] that should score 0 on average; for comparisons of one's own
    without demonstrations of one's own the preferred answers."""
    if config.comparisons and isinstance(config.demonstrations, int):
        return [(prompt, responses[0]) for prompt, responses in train]
    found = read_demonstrations(config.demonstrations, config.seed)
    return keep_fitting([encode_example(tokenizer, prompt.text, answer)
                         for prompt, answer in found], block_size, "demonstrations")


if __name__ == "__main__":
    run(main)
