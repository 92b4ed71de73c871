"""From text to batches `(tokens, mask)`, both (B, T), right-padded (see model.py).

Sequences of similar length share a batch, which saves computing padding. In evaluation that changes
nothing. In training it makes the order less random, and since SFT's loss is a mean over the tokens
of a batch, tokens of short sequences have a slightly larger weight.
"""

import torch
from torch.nn import functional as F
from tqdm import tqdm

from model import last_index, token_logprobs
from tools.flags import check


def encode_prompt(tokenizer, text):
    """A prompt ends in a newline, encoded apart, so that spaces before it cannot merge with it."""
    return tokenizer.encode(text) + tokenizer.encode("\n")


def encode_response(tokenizer, text):
    return tokenizer.encode(text) + [tokenizer.eos]


def encode_example(tokenizer, prompt, response):
    """-> (prompt ids, response ids)"""
    return encode_prompt(tokenizer, prompt), encode_response(tokenizer, response)


def collate(examples, device="cpu"):
    """[(prompt ids, response ids)] -> tokens, mask (B, T); the mask is 1 on the responses."""
    T = max(len(prompt) + len(response) for prompt, response in examples)
    tokens = torch.zeros(len(examples), T, dtype=torch.long)     # padding is id 0; the mask decides
    mask = torch.zeros(len(examples), T)
    for i, (prompt, response) in enumerate(examples):
        length = len(prompt) + len(response)
        tokens[i, :length] = torch.tensor(prompt + response)
        mask[i, len(prompt):length] = 1
    return tokens.to(device), mask.to(device)


def drop_long(examples, max_length, name):
    """[(prompt ids, response ids)] without those longer than the context. name: for messages"""
    fitting = []
    for prompt, response in examples:
        if len(prompt) + len(response) <= max_length:
            fitting.append((prompt, response))
    if len(fitting) < len(examples):
        print(f"{len(examples) - len(fitting)} of {len(examples)} {name} are longer than "
              f"{max_length} tokens and are left out")
    check(fitting, f"all {len(examples)} {name} are longer than {max_length} tokens")
    return fitting


def drop_long_prompts(tokenizer, prompts, max_length):
    """[Prompt or OwnPrompt] without those longer than max_length tokens."""
    fitting, too_long = [], []
    for prompt in prompts:
        if len(encode_prompt(tokenizer, prompt.text)) <= max_length:
            fitting.append(prompt)
        else:
            too_long.append(prompt)
    if too_long:
        print(f"{len(too_long)} of {len(prompts)} prompts are longer than {max_length} tokens, "
              "leave no room for a response and are left out; the first is "
              f"{too_long[0].text[:40]!r}...")
    check(fitting, f"all {len(prompts)} prompts are longer than {max_length} tokens and leave no "
                   "room for a response of --max-new-tokens")
    return fitting


def encode_fitting_prompts(tokenizer, prompts, max_length):
    """The same as lists of token ids."""
    fitting = drop_long_prompts(tokenizer, prompts, max_length)
    return [encode_prompt(tokenizer, prompt.text) for prompt in fitting]


# --- pretraining text -----------------------------------------------------------------------------


def pack(tokenizer, documents):
    """Documents -> one long row of token ids, with an end-of-text token after each document."""
    ids = []
    for document in documents:
        ids += tokenizer.encode(document) + [tokenizer.eos]
    return torch.tensor(ids)


def sample_windows(ids, B, T):
    """B random windows of T tokens, which may span documents. -> tokens, mask (B, T), all ones"""
    check(len(ids) >= T, f"a text of {len(ids)} tokens is shorter than a context of {T}; "
                         "give --documents more text")
    starts = torch.randint(len(ids) - T + 1, (B, 1))
    tokens = ids[(starts + torch.arange(T)).to(ids.device)]
    return tokens, torch.ones_like(tokens, dtype=torch.float32)


def all_windows(ids, T):
    """The text cut into windows of T tokens, without the remainder. -> tokens, mask (N, T)"""
    check(len(ids) >= T, f"a held-out text of {len(ids)} tokens is shorter than a context of {T}; "
                         "give --documents more text")
    tokens = ids[:len(ids) // T * T].view(-1, T)
    return tokens, torch.ones_like(tokens, dtype=torch.float32)


# --- sequences of similar length share a batch ----------------------------------------------------


def batch_by_length(lengths, batch_size):
    """-> batches (lists of indices). Sorting only within 16 random batches at a time leaves much of
    the shuffling and removes most of the padding."""
    order = torch.randperm(len(lengths)).tolist()
    batches = []
    for i in range(0, len(order), 16 * batch_size):
        chunk = sorted(order[i:i + 16 * batch_size], key=lambda j: lengths[j])
        for j in range(0, len(chunk), batch_size):
            batches.append(chunk[j:j + batch_size])
    return shuffled(batches)


def batch_comparisons(comparisons, n_responses):
    """Batches of comparisons with the same K, so that their scores form a (B, K) table, with at
    most n_responses responses, or one comparison. -> lists of indices"""
    rows_of_K = {}
    for i, comparison in enumerate(comparisons):
        rows_of_K.setdefault(len(comparison.responses), []).append(i)
    batches = []
    for K, rows in sorted(rows_of_K.items()):
        lengths = []
        for i in rows:
            longest = max(len(response) for response in comparisons[i].responses)
            lengths.append(len(comparisons[i].prompt) + longest)
        for batch in batch_by_length(lengths, max(1, n_responses // K)):
            batches.append([rows[j] for j in batch])
    return shuffled(batches)


def shuffled(batches):
    return [batches[i] for i in torch.randperm(len(batches))]


def apply_in_batches(fn, tokens, mask, batch_size=32):
    """fn(tokens, mask) of many rows, without gradients: sort them by length, call fn on batches
    cut to their longest row, put the results back in order. fn returns a value per row (b,), per
    token (b, t) or per action (b, t-1).
    -> the same for all rows, (B,), (B, T) or (B, T-1); values on padding are meaningless"""
    lengths = last_index(mask) + 1
    order = lengths.argsort(stable=True)
    outputs = []
    with torch.no_grad():
        for rows in tqdm(order.split(batch_size), "forward passes", leave=False,
                         disable=len(order) < 5000):
            t = int(lengths[rows].max())
            output = fn(tokens[rows, :t], mask[rows, :t])
            if output.ndim == 2:
                output = F.pad(output, (0, tokens.shape[1] - t))
            outputs.append(output)
    return torch.cat(outputs)[order.argsort()]


def logprobs_in_batches(model, tokens, mask):
    """token_logprobs of any number of rows, without gradients.  (N, T), (N, T) -> (N, T-1)"""
    return apply_in_batches(lambda tokens, _: token_logprobs(model(tokens), tokens), tokens, mask)
