"""Responses to any number of prompts, given as token ids or as text."""

import torch
from tqdm import tqdm

from data.batches import encode_prompt
from data.world.utility import measure_utility
from model import sample
from tools.flags import check


def generate(model, prompts, max_new_tokens, temperature, eos, title=None, batch_size=512):
    """Prompts (lists of token ids) -> a response (list of token ids) to each; its last token is eos
    if it ended. Prompts of similar length are sampled together. title: of a progress bar"""
    longest = max(len(prompt) for prompt in prompts)
    check(longest < model.config.block_size,
          f"a prompt of {longest} tokens leaves no room for a response in a context of "
          f"{model.config.block_size}; shorten it")
    responses = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in tqdm(range(0, len(order), batch_size), desc=title, disable=title is None):
        rows = order[start:start + batch_size]
        tokens, mask = sample(model, [prompts[i] for i in rows], max_new_tokens, temperature, eos)
        for i, row, row_mask in zip(rows, tokens, mask):
            responses[i] = row[row_mask > 0].tolist()
    return responses


def respond(model, tokenizer, texts, max_new_tokens, temperature=1.0, title=None):
    """The same for prompts given as text."""
    prompts = [encode_prompt(tokenizer, text) for text in texts]
    return generate(model, prompts, max_new_tokens, temperature, tokenizer.eos, title)


def watch(model, tokenizer, prompts, max_new_tokens, seed):
    """For the training log: mean true utility and share of correct answers at temperature 1
    (data/world/utility.py), with random numbers of its own; shows the first answer.
    -> dict(utility, correct), empty if there are no prompts"""
    if not prompts:
        return {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        responses = respond(model, tokenizer, [p.text for p in prompts], max_new_tokens)
    tqdm.write(f"  {prompts[0].text} {tokenizer.decode(responses[0])}")
    return measure_utility(prompts, responses, tokenizer)
