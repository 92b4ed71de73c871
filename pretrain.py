"""Step 0: pretraining. Next-token prediction on documents.

    loss = mean over tokens of -log pi(x_t | x_<t)

The documents describe a small made-up world (data/world/). Since its facts are known, how good an
answer is, its true utility, can be computed. Evaluation uses it; training sees it only through the
rankings of simulated labelers, who have biases and make errors.

    python pretrain.py       documents -> out/base.pt

To train on a text of your own, see --documents and docs/using.md.
"""

from dataclasses import dataclass

from torch import nn

from data.batches import all_windows, logprobs_in_batches, pack, sample_windows
from data.files import read_documents, read_heldout_documents
from data.tokenizer import Tokenizer, learn_ranks
from model import GPT, GPTConfig, masked_mean, token_logprobs
from tools.device import setup
from tools.flags import TrainingFlags, check, read_flags
from tools.optimizers import make_muon_and_adam, scale_lr, trapezoid
from tools.training import Run


@dataclass(frozen=True)
class Config(TrainingFlags):
    vocab_size: int = 1024         # byte-pair tokens and the end-of-text token
    block_size: int = 128          # context in tokens; paper 2,048
    n_layer: int = 4               # blocks
    n_head: int = 3                # attention heads
    n_embd: int = 96               # channels
    dropout: float = 0.0           # in pretraining and SFT; paper 0.2 for its SFT baseline
    documents: int | str = 12000   # documents of the small world, or a text file
    steps: int = 2400              # optimizer steps
    batch: int = 16                # windows per step
    lr: float = 2e-3               # peak learning rate of embeddings, biases and norms (Adam)
    muon_lr: float = 0.01          # peak learning rate of the blocks' matrices (Muon)
    weight_decay: float = 0.1      # of the blocks' matrices


def lm_loss(logits, tokens, mask):
    """Mean of -log pi over the tokens in the mask.  (B, T, V), (B, T), (B, T) -> ()"""
    return -masked_mean(token_logprobs(logits, tokens), mask[:, 1:])


def measure_loss(model, tokens, mask):
    """lm_loss of a held-out set of any size.  (N, T), (N, T) -> ()"""
    return -masked_mean(logprobs_in_batches(model, tokens, mask), mask[:, 1:])


def main():
    config = read_flags(__doc__, Config)
    check(config.n_embd % config.n_head == 0 and config.n_embd % 2 == 0,
          f"--n-embd {config.n_embd} must be even and a multiple of --n-head {config.n_head}")
    check(config.dropout < 1 and config.block_size > 1 and config.vocab_size > 256,
          "--dropout must be below 1, --block-size above 1 and --vocab-size above 256")
    device = setup(config)
    documents = read_documents(config.documents, config.seed)
    # 2,000 documents suffice for learning the merges; one token of the vocabulary is end-of-text
    tokenizer = Tokenizer(learn_ranks("\n".join(documents[:2000]), config.vocab_size - 1))
    text = pack(tokenizer, documents).to(device)
    heldout_text = pack(tokenizer, read_heldout_documents(config.documents)).to(device)
    heldout_tokens, heldout_mask = all_windows(heldout_text, config.block_size)

    gpt_config = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=config.block_size,
                           n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd,
                           dropout=config.dropout)
    model = GPT(gpt_config).to(device).train()
    # differs from the paper: Muon for the matrices of the blocks, to save steps
    muon, adam = make_muon_and_adam(model, config.muon_lr, config.lr, config.weight_decay)

    # the log, the progress bar, --resume and the final checkpoint (tools/training.py)
    run = Run(config, "base", config.steps, model=model, muon=muon, adam=adam)
    for step in range(run.first_step, config.steps):
        tokens, mask = sample_windows(text, config.batch, config.block_size)
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        # the paper does not say whether it clips gradients; here all stages do
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            scale_lr(optimizer, trapezoid(step / config.steps))
            optimizer.step()
            optimizer.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)

    heldout_loss = measure_loss(model.eval(), heldout_tokens, heldout_mask)
    run.finish(model, tokenizer, heldout_loss=heldout_loss)


if __name__ == "__main__":
    main()
