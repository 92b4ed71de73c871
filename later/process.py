"""Process supervision: a reward model that labels every step, and one that knows only the outcome.

    PRM    at the end of each step: is this step correct? Trained up to and including the first
           wrong step (2305.20050). Ending the answer is its last step, correct if none is missing.
    ORM    at every token: will the final answer be correct? The last token's output is the score.

    loss = mean over labelled tokens of -y log p - (1 - y) log (1 - p)

Steps are labelled by the truth, or without it by completions (Math-Shepherd, 2312.08935): the
policy completes the answer N times from the end of a step. The hard label is 1 if any completion
reaches the correct number, the soft label is the fraction of those that do.

    python -m later.completions                  out/chains.pt -> out/steps.jsonl, labelled answers
    python -m later.process --labels truth       out/steps.jsonl -> out/prm.pt
    python -m later.process --labels hard        -> out/prm_hard.pt; soft: prm_soft.pt
    python -m later.process --labels outcome     -> out/orm.pt
    python -m later.best_of                      best of 1 to 64 by each -> out/best_of.json
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from data.batches import batch_by_length, collate, apply_in_batches
from data.files import read_records
from model import masked_mean, token_logprobs
from reward import RewardModel
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import cosine, make_muon_and_adam, scale_lr
from tools.training import Run

NAMES = dict(truth="prm", hard="prm_hard", soft="prm_soft", outcome="orm")


@dataclass(frozen=True)
class Config(TrainingFlags):
    labels: str = "truth"          # truth, hard or soft: of steps; outcome: of the answer
    init_from: str = "chains"      # checkpoint in --out that becomes the reward model
    epochs: int = 3                # passes over the answers; paper 2
    batch: int = 32                # answers per step
    lr: float = 1e-3               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate of the blocks' matrices (Muon)


# --- equations ------------------------------------------------------------------------------------


def process_loss(logits, labels, mask):
    """Mean of -y log p - (1 - y) log (1 - p) over the mask, p = sigmoid(logit) (2305.20050, section
    2.6; 2312.08935, eq. 2). The mask is 1 at the ends of steps; for an ORM at every response token.
    Three tensors of one shape -> ()"""
    assert logits.shape == labels.shape == mask.shape
    return masked_mean(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), mask)


def step_logits(model, tokens, boundaries):
    """The head, plus log p of the step's tokens so far, at every token. boundaries: 1 at the last
    token of the prompt and of each step.  (B, T), (B, T) -> (B, T)"""
    # differs from the papers: their head alone finds hardly any mistake with so few answers
    hidden = model.gpt.hidden(tokens)                                        # (B, T, C)
    logp = token_logprobs(model.gpt.lm_head(hidden), tokens)                 # (B, T-1)
    logp_so_far = F.pad(logp.cumsum(dim=1), (1, 0))                          # (B, T)
    positions = torch.arange(tokens.shape[1], device=tokens.device) * boundaries.long()
    start = F.pad(positions.cummax(dim=1).values[:, :-1], (1, 0))            # boundary before t
    return model.head(hidden).squeeze(-1) + logp_so_far - logp_so_far.gather(1, start)


def solution_score(probabilities, mask, how):
    """The score of an answer from its steps: "product" of their p (2305.20050, section 2.6) or
    "min" (2312.08935, section 3.4).  (B, S), (B, S) -> (B,)"""
    p = torch.where(mask > 0, probabilities, 1.0)          # padding changes neither
    return p.prod(dim=1) if how == "product" else p.amin(dim=1)


# --- batches --------------------------------------------------------------------------------------


def find_targets(record, labels):
    """Which indices of the response are labelled, and with what. -> two lists
    record: a line of steps.jsonl"""
    if labels == "outcome":
        n = len(record["ids"])
        return list(range(n)), [float(record["correct"])] * n
    ends = record["ends"]
    if labels == "truth":
        targets = [float(correct) for correct in record["correct_steps"]]
        stop = targets.index(0.0) + 1 if 0.0 in targets else len(targets)
        return ends[:stop], targets[:stop]
    if labels == "hard":
        return ends, [float(hits > 0) for hits in record["hits"]]
    return ends, [hits / record["completions"] for hits in record["hits"]]


def collate_targets(records, labels, device="cpu"):
    """-> tokens, boundaries (see step_logits), targets, and mask (B, T), 1 on labelled tokens.
    For an ORM the answer is one long step."""
    examples = [(record["prompt"], record["ids"]) for record in records]
    tokens, _ = collate(examples, device)
    no_ends = [[] for _ in records]
    boundaries = mark_boundaries(examples, no_ends if labels == "outcome" else
                                 [record["ends"] for record in records], tokens)
    targets, mask = torch.zeros_like(boundaries), torch.zeros_like(boundaries)
    for b, record in enumerate(records):
        indices, values = find_targets(record, labels)
        for i, value in zip(indices, values):
            targets[b, len(record["prompt"]) + i] = value
            mask[b, len(record["prompt"]) + i] = 1
    return tokens, boundaries, targets, mask


def mark_boundaries(examples, ends, tokens):
    """1 at the last token of the prompt and where steps end.  -> (B, T)"""
    boundaries = torch.zeros(tokens.shape, device=tokens.device)
    for b, (prompt, _) in enumerate(examples):
        for i in [-1] + ends[b]:
            boundaries[b, len(prompt) + i] = 1
    return boundaries


def step_probabilities(model, examples, ends):
    """[(prompt ids, response ids)], and per response the indices where its steps end
    -> per response a list of the steps' p"""
    tokens, _ = collate(examples, model.head.weight.device)
    boundaries = mark_boundaries(examples, ends, tokens)
    p = apply_in_batches(lambda x, marks: step_logits(model, x, marks), tokens,
                          boundaries).sigmoid().cpu()
    probabilities = []
    for row, (prompt, _), indices in zip(p, examples, ends):
        probabilities.append([row[len(prompt) + i].item() for i in indices])
    return probabilities


# --- main -----------------------------------------------------------------------------------------


def read_labelled(out):
    """-> training records and held-out records"""
    path = f"{out}/steps.jsonl"
    check(Path(path).is_file(), f"{path} not found; run `python -m later.completions` first")
    records = [record for _, record in read_records(path) if record["ends"]]
    check(len(records) > 1, f"{path}: fewer than two answers have a step; label more --sums")
    n_heldout = max(1, len(records) // 10)
    return records[n_heldout:], records[:n_heldout]


@torch.no_grad()
def label_accuracy(model, records, labels, device):
    """How often p is on the same side of 1/2 as the label. -> float"""
    tokens, boundaries, targets, mask = collate_targets(records, labels, device)
    logits = step_logits(model, tokens, boundaries)
    return masked_mean(((logits > 0) == (targets >= 0.5)).float(), mask).item()


def main():
    config = read_flags(__doc__, Config)
    check(config.labels in NAMES, f"--labels {config.labels} must be one of {', '.join(NAMES)}")
    device = setup(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    model = RewardModel(gpt).to(device)
    records, heldout = read_labelled(config.out)
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    lengths = [len(record["prompt"]) + len(record["ids"]) for record in records]
    batches = []
    for _ in range(config.epochs):
        batches += batch_by_length(lengths, config.batch)

    run = Run(config, NAMES[config.labels], len(batches), model=model, muon=muon, adam=adam)
    for step in range(run.first_step, len(batches)):
        batch = [records[i] for i in batches[step]]
        tokens, boundaries, targets, mask = collate_targets(batch, config.labels, device)
        loss = process_loss(step_logits(model, tokens, boundaries), targets, mask)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            scale_lr(optimizer, cosine(step / len(batches)))
            optimizer.step()
            optimizer.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)
    run.finish(model, tokenizer,
               accuracy=label_accuracy(model, heldout, config.labels, device))


if __name__ == "__main__":
    main()
