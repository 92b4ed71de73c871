"""Step 2b: the reward model, a scalar fitted to rankings (InstructGPT, 2203.02155, section 3.5).

    loss = -E[ mean over pairs of log sigmoid(r(x, y_w) - r(x, y_l)) ]                      (eq. 1)

The expectation is over prompts x, the mean over all C(K,2) pairs of a prompt's K ranked responses,
where y_w is ranked above y_l. All pairs of a prompt are in one batch. Were they separate examples,
every response would be trained on K - 1 times, and the paper's models overfitted within one epoch.
It would also take a forward pass for both responses of each pair, instead of one per response.

    python reward.py         out/sft.pt, questions, out/comparisons.jsonl -> out/reward.pt

To train on comparisons of your own, see docs/using.md.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from data.batches import apply_in_batches, batch_comparisons, collate, encode_example
from data.comparisons import (flatten, label_accuracy, read_comparisons, read_questions,
                              split_by_prompt)
from data.files import read_demonstrations
from model import GPT, last_index
from tools.checkpoints import load_checkpoint, load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, read_flags
from tools.optimizers import make_adam, scale_lr, trapezoid
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "sft"         # checkpoint in --out to start from
    comparisons: str = ""          # a file; default: comparisons.jsonl in --out
    epochs: int = 1                # paper 1
    questions: int = 20000         # multiple-choice, before rankings; none with --comparisons
    batch: int = 32                # responses per step, all of a prompt together; paper 64 prompts
    lr: float = 5e-4               # peak learning rate (Adam); paper 9e-6


class RewardModel(nn.Module):
    """The SFT model with a scalar head in place of the unembedding (section 3.5).

    The head returns a scalar at every position. The reward r(x, y) is the scalar at the last token
    of the response, the first position that has seen all of it (see `score`). ppo.py uses the same
    class as value function and reads the scalar at every position.

    Eq. 1 compares answers to the same prompt, so it determines r only up to a constant per prompt.
    """

    def __init__(self, gpt):
        super().__init__()
        self.config = gpt.config
        self.gpt = gpt
        self.head = nn.Linear(gpt.config.n_embd, 1)
        # all scores start at 0; the first step moves only the head
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens):
        """A scalar per position.  (B, T) -> (B, T)"""
        return self.head(self.gpt.hidden(tokens)).squeeze(-1)

    def score_responses(self, tokens, mask):
        """r(x, y) of each row.  (B, T), (B, T) -> (B,)"""
        return score(self(tokens), mask)


def score(per_token, mask):
    """r(x, y), the scalar at the last response token.  (B, T), (B, T) -> (B,)"""
    assert per_token.shape == mask.shape
    return per_token.gather(1, last_index(mask)[:, None]).squeeze(1)


def preference_loss(score_w, score_l):
    """-log sigmoid(r_w - r_l), the negative Bradley-Terry log-likelihood, mean over pairs (eq. 1).
    Two tensors of one shape -> ()"""
    return -F.logsigmoid(score_w - score_l).mean()


def pair_indices(K):
    """All pairs of K responses, best first. -> better, worse: (C(K,2),) each"""
    return torch.combinations(torch.arange(K), 2).unbind(dim=1)


def ranking_loss(scores):
    """Eq. 1: mean over all C(K,2) pairs of each prompt, then over prompts; a plain mean, since
    batch_comparisons puts prompts with the same K together.  (B, K), best first -> ()"""
    better, worse = pair_indices(scores.shape[1])
    return preference_loss(scores[:, better], scores[:, worse])


def load_reward(path, device="cpu", partner=None):
    """-> RewardModel in evaluation mode. partner: (policy, tokenizer) that it must fit"""
    return load_checkpoint(path, lambda config: RewardModel(GPT(config)), device, partner)[0]


def score_all(model, examples, device):
    """Scores of any number of responses.  [(prompt ids, response ids)] -> (N,)"""
    tokens, mask = collate(examples, device)
    return apply_in_batches(model.score_responses, tokens, mask)


@torch.no_grad()
def shift_bias(config, model, tokenizer, train, device):
    """The loss does not determine the bias. It is set so that demonstrations score 0 on average
    (section 3.5); with comparisons of your own, so that the preferred responses do."""
    if config.comparisons:
        examples = [(comparison.prompt, comparison.responses[0]) for comparison in train]
    else:
        examples = []
        for prompt, answer in read_demonstrations(500, "train", config.seed):
            examples.append(encode_example(tokenizer, prompt.text, answer))
    model.head.bias -= score_all(model, examples, device).mean()


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    train, valid = read_comparisons(config.comparisons or f"{config.out}/comparisons.jsonl",
                                    tokenizer, gpt.config.block_size)
    # the paper's reward model began with one fine-tuned on question answering (appendix C.2)
    n_questions = 0 if config.comparisons else config.questions
    questions = read_questions(n_questions, config.seed, tokenizer)
    # differs from the paper: the reward model is as large as the policy, not 6B for every policy
    model = RewardModel(gpt).to(device)          # gpt stays in evaluation mode: no dropout
    adam = make_adam(model.parameters(), config.lr)
    batches = []
    for comparisons, epochs in (questions, 1), (train, config.epochs):
        for _ in range(epochs):
            for rows in batch_comparisons(comparisons, config.batch):
                batches.append([comparisons[i] for i in rows])
    n_steps = len(batches)

    run = Run(config, "reward", n_steps, model=model, adam=adam)
    for step in range(run.first_step, n_steps):
        comparisons = batches[step]                                              # B of equal K
        tokens, mask = collate(flatten(comparisons), device)                     # (B K, T)
        scores = model.score_responses(tokens, mask).view(len(comparisons), -1)  # (B, K)
        loss = ranking_loss(scores)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # differs from the paper: a constant rate, then linear decay to 0, not a cosine
        scale_lr(adam, trapezoid(step / n_steps))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)

    shift_bias(config, model, tokenizer, train, device)
    # accuracy on held-out labels, and of the baseline "the longer response is better"
    scores = score_all(model, flatten(valid), device)
    lengths = torch.tensor([len(response) for _, response in flatten(valid)])
    run.finish(model, tokenizer, accuracy=label_accuracy(split_by_prompt(scores, valid)),
               accuracy_of_longer=label_accuracy(split_by_prompt(lengths, valid)))


if __name__ == "__main__":
    main()
