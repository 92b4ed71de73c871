"""Supervised training, which later/chains.py, process.py, judge.py, constitution.py and feedback.py
share: the loop of sft.py for any loss."""

import torch
from torch import nn

from data.batches import batch_by_length, collate, drop_long, encode_example
from pretrain import lm_loss
from tools.optimizers import cosine, scale_lr
from tools.training import Run, is_finished


def fit(config, name, model, optimizers, n_steps, loss_fn):
    """loss_fn: step -> loss (). -> the Run; the caller finishes it. With --resume, a stage that is
    finished is loaded."""
    if is_finished(config, name):
        path = f"{config.out}/{name}.pt"
        model.load_state_dict(torch.load(path, weights_only=True)["weights"])
        return FinishedRun()
    states = {f"optimizer_{i}": optimizer for i, optimizer in enumerate(optimizers)}
    run = Run(config, name, n_steps, model=model, **states)
    for step in range(run.first_step, n_steps):
        loss = loss_fn(step)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            scale_lr(optimizer, cosine(step / n_steps))
            optimizer.step()
            optimizer.zero_grad()
        run.log(step, loss=loss, grad_norm=grad_norm)
        if step % 100 == 99:
            run.save(step)
    return run


class FinishedRun:
    def finish(self, *_, **values):
        """Nothing is written."""


def make_batches(config, tokenizer, pairs, block_size, device):
    """[(prompt text, answer)] -> [(tokens, mask)] in random order, one pass"""
    examples = [encode_example(tokenizer, prompt, answer) for prompt, answer in pairs]
    examples = drop_long(examples, block_size, "examples")
    lengths = [len(prompt) + len(response) for prompt, response in examples]
    batches = []
    for rows in batch_by_length(lengths, config.batch):
        batches.append(collate([examples[i] for i in rows], device))
    return batches


def imitate(config, name, model, tokenizer, optimizers, batches):
    """The loss of sft.py on [(tokens, mask)] -> out/<name>.pt"""
    def loss_fn(step):
        tokens, mask = batches[step]
        return lm_loss(model(tokens), tokens, mask)
    run = fit(config, name, model, optimizers, len(batches), loss_fn)
    run.finish(model, tokenizer, steps=len(batches))
