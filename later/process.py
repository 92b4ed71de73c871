"""Process supervision: a reward model that reads every step, against one that knows the end alone.

    PRM    at each step's end: is this step right? trained up to the first wrong one (2305.20050);
           to end the answer is its last step: right if none is missing
    ORM    at every token: will the final answer be right? its last token is the score
    labels of steps by the truth, or by Monte Carlo (Math-Shepherd, 2312.08935): complete the answer
    from this step N times; hard: any completion reaches the right number, soft: how many do

Nobody needs the truth of steps for Monte Carlo labels, but a mistake that a later slip repairs
counts as right. Where right answers with wrong traces are rare, PRM and ORM must tie.

    python -m later.completions                  out/chains.pt -> out/steps.jsonl, labelled answers
    python -m later.process --labels truth       steps.jsonl -> out/prm.pt
    python -m later.process --labels hard        -> out/prm_hard.pt; soft: prm_soft.pt
    python -m later.process --labels outcome     -> out/orm.pt
    python -m later.best_of                      best of 1 to 64 by each -> out/best_of.json

Flags of every stage: --out --seed --device --precision --resume (tools/flags.py).
"""

from dataclasses import dataclass
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch
from torch.nn import functional as F

from data.batches import batch_by_length, collate, limit_rows
from data.files import read_records
from model import load_gpt, masked_mean, token_logprobs
from reward import RewardModel
from tools.device import start
from tools.flags import Training, check, read_flags, run
from tools.optimizers import cosine, make_muon_and_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Config(Training):
    labels: str = "truth"          # truth, hard, soft: of steps; outcome: of the answer
    begin: str = "chains"          # checkpoint in --out that becomes the reward model
    likelihood: bool = True        # add the step's log-likelihood; papers: no
    epochs: int = 3                # passes over the answers; paper 2
    batch: int = 32                # answers per step
    lr: float = 1e-3               # peak learning rate (Adam)
    muon_lr: float = 0.005         # peak learning rate of the blocks' matrices (Muon)


# --- equations ------------------------------------------------------------------------------------


def process_loss(logits, labels, mask):
    """Mean over the steps under the mask of -y log p - (1-y) log (1-p), p = sigmoid(logit)
    (2305.20050, section 2.6; 2312.08935, eq. 2). Three (B, S) -> (). With an answer's label at each
    of its tokens it is the ORM's loss."""
    assert logits.shape == labels.shape == mask.shape
    return masked_mean(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), mask)


def step_logits(model, tokens, starts, ends):
    """The head at a step's end plus likelihood * log p of the step's own tokens, those after
    `starts`. (B, T), two (B, S) of positions -> (B, S). What comes later changes nothing."""
    # differs from the papers: their head alone (--no-likelihood) is slow to see a slip of one
    hidden = model.gpt.hidden(tokens)                                        # (B, T, C)
    logp = token_logprobs(model.gpt.lm_head(hidden), tokens).cumsum(dim=1)   # (B, T-1)
    so_far = F.pad(logp, (1, 0))                                             # (B, T)
    return (model.head(hidden).squeeze(-1).gather(1, ends)
            + model.likelihood * (so_far.gather(1, ends) - so_far.gather(1, starts)))


def solution_score(probabilities, mask, how):
    """A whole answer from its steps: "product" of p (2305.20050, section 2.6) or "min" of them
    (2312.08935, section 3.4). (B, S), (B, S) -> (B,)"""
    filled = torch.where(mask > 0, probabilities, 1.0)       # a step that is none changes nothing
    return filled.prod(dim=1) if how == "product" else filled.amin(dim=1)


def step_advantages(rewards, ends, T):
    """A token earns the normalised rewards of the steps that end at or after it (2402.03300,
    section 4.1.3). rewards, ends: of a group's answers a list each, ends counted as actions are,
    0 to T - 1. -> (G, T)"""
    every = torch.tensor(sum(rewards, []))
    adv = torch.zeros(len(rewards), T)
    for row, some, where in zip(adv, rewards, ends):
        for reward, end in zip(some, where):
            row[:end + 1] += (reward - every.mean()) / (every.std(correction=0) + 1e-4)
    return adv


# --- batches --------------------------------------------------------------------------------------


def find_targets(record, labels):
    """-> positions in the whole text after which steps begin, where they end, and what is to be
    said of them; if the truth is told, up to the first wrong one. outcome: at every token of the
    answer, of all up to it"""
    first, n = len(record["prompt"]), len(record["ids"])
    if labels == "outcome":
        return [first - 1] * n, list(range(first, first + n)), [record["right"]] * n
    ends = [first + end for end in record["ends"]]
    starts = [first - 1, *ends][:-1]
    if labels == "truth":
        wanted = record["right_steps"]
        stop = wanted.index(False) + 1 if False in wanted else len(wanted)
        return starts[:stop], ends[:stop], wanted[:stop]
    share = [h / record["completions"] for h in record["hits"]]
    return starts, ends, [float(s > 0) for s in share] if labels == "hard" else share


def collate_steps(records, labels):
    """-> tokens (B, T), starts, ends, targets and mask (B, S)"""
    tokens, _ = collate([(record["prompt"], record["ids"]) for record in records])
    found = [find_targets(record, labels) for record in records]
    S = max(len(targets) for _, _, targets in found)
    starts, ends = torch.zeros(2, len(records), S, dtype=torch.long)
    wanted, mask = torch.zeros(2, len(records), S)
    for b, (before, where, targets) in enumerate(found):
        starts[b, :len(targets)], ends[b, :len(targets)] = torch.tensor([before, where])
        wanted[b, :len(targets)], mask[b, :len(targets)] = torch.tensor(targets).float(), 1
    return tokens, starts, ends, wanted, mask


@torch.no_grad()
def step_probabilities(model, examples, ends):
    """[(prompt ids, response ids)] and where each response's steps end, each begins where the one
    before ended -> a list of chances for each response"""
    found, device = [None] * len(examples), model.head.weight.device
    lengths = torch.tensor([len(prompt) + len(response) for prompt, response in examples])
    for rows in lengths.argsort(stable=True).split(limit_rows(model.gpt.config)):
        tokens, starts, stops, _, mask = (x.to(device) for x in collate_steps([
            dict(prompt=examples[i][0], ids=examples[i][1], ends=ends[i], hits=[0] * len(ends[i]),
                 completions=1) for i in rows], "soft"))
        chance = step_logits(model, tokens, starts, stops).sigmoid()
        for i, row, kept in zip(rows.tolist(), chance, mask):
            found[i] = row[kept > 0].tolist()
    return found


# --- main -----------------------------------------------------------------------------------------


def read_labelled(out):
    path = f"{out}/steps.jsonl"
    check(Path(path).is_file(), f"{path} not found; run `python -m later.completions` first")
    records = [record for _, record in read_records(path)]
    wanted = {"prompt", "ids", "ends", "right", "right_steps", "hits", "completions"}
    check(all(wanted <= set(r) and len(r["ends"]) == len(r["right_steps"]) == len(r["hits"])
              for r in records), f"{path} is damaged; run `python -m later.completions` again")
    records = [record for record in records if record["ends"]]
    check(len(records) > 9, f"{path} holds {len(records)} answers with a step; label more --sums")
    return records[len(records) // 10:], records[:len(records) // 10]


@torch.no_grad()
def measure_accuracy(model, records, labels, device):
    """How often a chance above a half means a label of a half or more, on answers held out"""
    right = asked = 0
    for i in range(0, len(records), limit_rows(model.gpt.config)):
        tokens, starts, ends, wanted, mask = (x.to(device) for x in collate_steps(
            records[i:i + limit_rows(model.gpt.config)], labels))
        logits = step_logits(model, tokens, starts, ends)
        right += (((logits > 0) == (wanted >= 0.5)) * mask).sum().item()
        asked += mask.sum().item()
    return right / asked


NAMES = dict(truth="prm", hard="prm_hard", soft="prm_soft", outcome="orm")


def main():
    config = read_flags(__doc__, Config)
    check(config.labels in NAMES, f"--labels {config.labels}: one of {' '.join(NAMES)}")
    device, generator = start(config)
    gpt, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    model = RewardModel(gpt, float(config.likelihood)).to(device)
    records, heldout = read_labelled(config.out)
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr)
    lengths = [len(record["prompt"]) + len(record["ids"]) for record in records]
    batches = [rows for _ in range(config.epochs)
               for rows in batch_by_length(lengths, config.batch, generator)]
    steps = Steps(config, NAMES[config.labels])
    for step in steps.upto(len(batches), records, model=model, muon=muon, adam=adam):
        tokens, starts, ends, wanted, mask = (x.to(device) for x in collate_steps(
            [records[i] for i in batches[step]], config.labels))
        logits = step_logits(model, tokens, starts, ends)                        # (B, S)
        loss = process_loss(logits, wanted, mask)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * cosine(step / len(batches)))
        set_lr(adam, config.lr * cosine(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)
    accuracy = measure_accuracy(model, heldout, config.labels, device)
    steps.end(model, gpt.config, tokenizer, f"right on {accuracy:.1%} of held-out labels",
              heldout_accuracy=accuracy, likelihood=model.likelihood)


if __name__ == "__main__":
    run(main)
