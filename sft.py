"""Step 1: supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5).

    loss = mean over response tokens of -log pi(y_t | x, y_<t)

x is the prompt and y the response, which ends in the end-of-text token. The prompt is not part of
the loss.

    python sft.py            out/base.pt, demonstrations, some documents -> out/sft.pt

To train on demonstrations or documents of your own, see docs/using.md.
"""

from dataclasses import dataclass

from torch import nn

from data.batches import (batch_by_length, collate, drop_long, encode_example, pack,
                          sample_windows)
from data.files import is_small_world, read_demonstrations, read_documents
from pretrain import lm_loss, measure_loss
from tools.checkpoints import load_gpt
from tools.device import setup
from tools.flags import TrainingFlags, read_flags
from tools.optimizers import cosine, make_adam, scale_lr
from tools.training import Run


# differs from the paper: one SFT model, trained for 2 epochs with pretraining text mixed in
# (appendix C.3), initialises PPO and is the baseline; the paper's baseline was trained apart, for
# 16 epochs
@dataclass(frozen=True)
class Config(TrainingFlags):
    init_from: str = "base"        # checkpoint in --out to start from
    demonstrations: int | str = 8000       # how many of the small world, or a file; paper 12,725
    documents: int | str = 12000   # pretraining text to mix in
    mix_every: int = 10            # a batch of documents follows so many of demonstrations
    epochs: int = 2                # paper 2 for the model that PPO starts from
    batch: int = 32                # sequences per step; paper 32
    lr: float = 5e-4               # peak learning rate (Adam); paper 2.45e-6 to 1.04e-5


N_HELDOUT = 300                    # demonstrations of the small world to measure the loss on


def load_examples(source, split, seed, tokenizer, block_size):
    """Demonstrations -> [(prompt ids, response ids)]"""
    examples = []
    for prompt, answer in read_demonstrations(source, split, seed):
        examples.append(encode_example(tokenizer, prompt.text, answer))
    return drop_long(examples, block_size, "demonstrations")


def main():
    config = read_flags(__doc__, Config)
    device = setup(config)
    model, tokenizer = load_gpt(f"{config.out}/{config.init_from}.pt", device)
    T = model.config.block_size
    source = config.demonstrations
    heldout_source = N_HELDOUT if is_small_world(source) else source
    train = load_examples(source, "train", config.seed, tokenizer, T)
    valid = load_examples(heldout_source, "valid", config.seed, tokenizer, T)
    text = pack(tokenizer, read_documents(config.documents, config.seed)).to(device)

    # all batches are drawn before Run may restore the random state, so a resumed run has the same
    batches = []
    lengths = [len(prompt) + len(response) for prompt, response in train]
    for _ in range(config.epochs):
        for number, rows in enumerate(batch_by_length(lengths, config.batch), 1):
            batches.append(collate([train[i] for i in rows], device))
            if number % config.mix_every == 0:
                # a window is about four times as long as a demonstration, so this many windows
                # hold as many tokens
                batches.append(sample_windows(text, max(1, config.batch // 4), T))
    n_steps = len(batches)

    model.train()                                            # dropout as given to pretrain.py
    adam = make_adam(model.parameters(), config.lr)
    run = Run(config, "sft", n_steps, model=model, adam=adam)
    for step in range(run.first_step, n_steps):
        tokens, mask = batches[step]
        loss = lm_loss(model(tokens), tokens, mask)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale_lr(adam, cosine(step / n_steps))
        adam.step()
        adam.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)

    tokens, mask = collate(valid, device)
    run.finish(model, tokenizer, heldout_loss=measure_loss(model.eval(), tokens, mask))


if __name__ == "__main__":
    main()
