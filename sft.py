"""Steps 0 and 1: imitate. Next-token prediction on documents (pretrain), then on demonstrations.

Both minimise one loss, the mean of -log pi(token | tokens before it) over the tokens under a mask.
In pretraining the mask is all ones; in supervised fine-tuning it covers the response and its
end-of-text token, never the prompt (InstructGPT, arXiv 2203.02155, section 3.5; hyperparameters
appendix C.1 and C.3).

    python sft.py --stage pretrain   documents                                    -> out/base.pt
    python sft.py                    out/base.pt, demonstrations, 10 % documents  -> out/sft.pt

--documents and --demonstrations also take a file of your own (docs/using.md). Flags of every
training script: --out --seed --device --precision --resume (tools/flags.py).
"""

from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch

from data.batches import (batch_by_length, collate, draw_windows, encode_example, keep_fitting,
                          limit_rows, pack)
from data.files import number_or_file, read_demonstrations, read_documents, truth_is_known
from data.tokenizer import Tokenizer, train_ranks
from model import MOST, GPT, GPTConfig, load_gpt, masked_mean, token_logprobs
from tools.device import start
from tools.flags import Training, check, check_ranges, flag, read_flags, run
from tools.optimizers import cosine, make_muon_and_adam, set_lr
from tools.steps import Steps


@dataclass(frozen=True)
class Pretrain(Training):
    stage: str = "pretrain"        # pretrain or sft; each has flags of its own
    vocab_size: int = 1024         # byte-pair ranks plus the end-of-text token
    block_size: int = 128          # context in tokens; paper 2,048
    n_layer: int = 4               # blocks
    n_head: int = 3                # heads
    n_embd: int = 96               # channels
    dropout: float = 0.0           # kept for sft; paper 0.2 for its SFT baseline
    documents: number_or_file = 12000      # documents of the small world, or a text file
    steps: int = 2600              # optimiser steps
    batch: int = 16                # windows per step
    lr: float = 2e-3               # peak learning rate of embeddings and vectors (Adam)
    muon_lr: float = 0.01          # peak learning rate of the blocks' matrices (Muon)
    weight_decay: float = 0.1      # of the blocks' matrices


# differs from the paper: one SFT model, made by the recipe of appendix C.3 (two epochs, 10 %
# documents), is the baseline, the start of PPO and of the reward model
@dataclass(frozen=True)
class Finetune(Training):
    stage: str = "sft"             # sft or pretrain; each has flags of its own
    begin: str = "base"            # checkpoint in --out to begin with
    demonstrations: number_or_file = 8000  # of the small world, or a file; paper 12,725
    documents: number_or_file = 12000      # of which pretraining batches are mixed in
    mix: float = 0.1               # pretraining batches per batch of demonstrations; paper 0.1
    epochs: int = 2                # over the demonstrations; paper 2 for the model PPO starts from
    batch: int = 32                # sequences per step; paper 32
    lr: float = 1e-3               # peak learning rate (Adam); paper 2.45e-6 to 1.04e-5
    muon_lr: float = 0.005         # peak learning rate (Muon)
    weight_decay: float = 0.1      # of the blocks' matrices; not printed in the paper


# --- loss -----------------------------------------------------------------------------------------


def lm_loss(logits, tokens, mask):
    """Mean over masked tokens of -log pi. (B, T, V), (B, T), (B, T) -> ()"""
    return -masked_mean(token_logprobs(logits, tokens), mask[:, 1:])


@torch.no_grad()
def measure_loss(model, batches, device):
    """Mean of lm_loss over held-out batches, each weighted by its masked tokens."""
    total = count = 0
    for tokens, mask in batches:
        for rows in torch.arange(len(tokens)).split(limit_rows(model.config)):
            x, m = tokens[rows].to(device), mask[rows].to(device)
            n = m[:, 1:].sum().item()
            total, count = total + n * lm_loss(model(x), x, m).item(), count + n
    return total / count


# --- what is learned ------------------------------------------------------------------------------


def prepare_pretraining(config, device, generator):
    """Windows from anywhere in the text. -> model, tokenizer, batches, held-out batches"""
    documents = read_documents(config.documents, config.seed)
    heldout = read_documents(config.documents, which="held-out", n=200)
    tokenizer = Tokenizer(train_ranks("\n".join(documents[:2000]), config.vocab_size - 1))
    model = GPT(GPTConfig(tokenizer.vocab_size, config.block_size, config.n_layer, config.n_head,
                          config.n_embd, config.dropout)).to(device)
    stream = pack(tokenizer, documents)
    batches = [draw_windows(stream, config.batch, config.block_size, generator)
               for _ in range(config.steps)]
    return model, tokenizer, batches, [draw_windows(pack(tokenizer, heldout), 64,
                                                    config.block_size, generator)]


def prepare_finetuning(config, device, generator):
    """Demonstrations of like length; after a batch of them, with probability --mix, a batch of
    documents: a quarter as many rows, each a whole context. -> model, tokenizer, batches, held-out
    batches"""
    # text of the small world is not mixed into other people's demonstrations
    related = truth_is_known(config.demonstrations) or not truth_is_known(config.documents)
    documents = read_documents(config.documents, config.seed) if related else []
    model, tokenizer = load_gpt(f"{config.out}/{config.begin}.pt", device)
    T = model.config.block_size
    train, valid = ([encode_example(tokenizer, prompt.text, answer) for prompt, answer in
                     read_demonstrations(config.demonstrations, config.seed, which, n)]
                    for which, n in (("train", None), ("valid", 300)))
    train, valid = keep_fitting(train, T, "train demonstrations"), keep_fitting(
        valid, T, "valid demonstrations")
    stream, batches = pack(tokenizer, documents), []
    lengths = [len(prompt) + len(response) for prompt, response in train]
    for _ in range(config.epochs):
        for rows in batch_by_length(lengths, config.batch, generator):
            batches.append(collate([train[i] for i in rows]))
            if torch.rand((), generator=generator) < config.mix and documents:
                batches.append(draw_windows(stream, max(1, config.batch // 4), T, generator))
    return model, tokenizer, batches, [collate(valid)]


# --- main -----------------------------------------------------------------------------------------


def trapezoid(done):
    """A learning rate's factor in pretraining when a share `done` of the steps is behind us:
    warm-up, constant, the second half down to 0."""
    return min(1, 0.02 + 25 * done, 2 * (1 - done))


def main():
    config = read_flags(__doc__, Finetune, Pretrain)
    check_ranges(config, at_least_0="weight_decay")
    device, generator = start(config)
    if config.stage == "pretrain":
        for name, most in MOST.items():
            check(getattr(config, name) <= most, f"{flag(name)} is {most} at most")
        check(config.n_embd % config.n_head == 0 and config.n_embd % 2 == 0,
              f"--n-embd {config.n_embd} must be even and a multiple of --n-head {config.n_head}")
        check(config.vocab_size >= 512, f"--vocab-size {config.vocab_size}: 512 or more")
        check(0 <= config.dropout < 1, f"--dropout {config.dropout}: 0 to below 1")
        steps, prepare, schedule = Steps(config, "pretrain", "base"), prepare_pretraining, trapezoid
    else:
        check_ranges(config, share="mix")
        steps, prepare, schedule = Steps(config, "sft"), prepare_finetuning, cosine
    model, tokenizer, batches, heldout = prepare(config, device, generator)

    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr, config.weight_decay)
    model.train()
    learned = [tokens for tokens, _ in batches]            # --resume checks that it is the same
    for step in steps.upto(len(batches), learned, model=model, muon=muon, adam=adam):
        tokens, mask = (x.to(device) for x in batches[step])
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(muon, config.muon_lr * schedule(step / len(batches)))
        set_lr(adam, config.lr * schedule(step / len(batches)))
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad()
        steps.log(step, loss=loss, norm=norm)

    loss = measure_loss(model.eval(), heldout, device)
    steps.end(model, model.config, tokenizer, f"held-out loss {loss:.3f}", heldout_loss=loss)


if __name__ == "__main__":
    run(main)
