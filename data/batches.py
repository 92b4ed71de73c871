"""Token batches under one contract: `(tokens, mask)`, both (B, T), right-padded; mask[b, t] = 1
where tokens[b, t] is one that we learn from. Causal attention never looks right, so right padding
needs no attention mask.
"""

import tools               # before torch: it says how torch's threads wait
import torch

from tools.flags import check

PAD = 0


def encode_prompt(tokenizer, text):
    """A prompt ends in a newline; the response follows."""
    return tokenizer.encode(text) + tokenizer.encode("\n")


def encode_example(tokenizer, prompt, response):
    """-> prompt ids, response ids with their end-of-text token. Encoded apart, so the boundary
    never moves."""
    return encode_prompt(tokenizer, prompt), tokenizer.encode(response) + [tokenizer.eot]


def collate(examples):
    """[(prompt ids, response ids)] -> tokens, mask (B, T); the mask covers the response."""
    T = max(len(prompt) + len(response) for prompt, response in examples)
    tokens = torch.full((len(examples), T), PAD)
    mask = torch.zeros(len(examples), T)
    for b, (prompt, response) in enumerate(examples):
        start, stop = len(prompt), len(prompt) + len(response)
        tokens[b, :stop] = torch.tensor(prompt + response)
        mask[b, start:stop] = 1
    return tokens, mask


def flatten(items):
    """[(prompt, [response, ...])] -> [(prompt, response)]"""
    return [(prompt, response) for prompt, responses in items for response in responses]


def keep_fitting(examples, block_size, what):
    """Those whose prompt and response fit the context; says how many do not."""
    kept = [example for example in examples if sum(map(len, example)) <= block_size]
    if len(kept) < len(examples):
        print(f"{len(examples) - len(kept)} of {len(examples)} {what} are longer than the context "
              f"of {block_size} tokens and left out")
    check(kept, f"none of {len(examples)} {what} fits the context of {block_size} tokens")
    return kept


def encode_prompts(prompts, tokenizer, block_size, max_new_tokens):
    """Prompts -> lists of ids; those that leave no room for an answer are left out and counted."""
    encoded = [encode_prompt(tokenizer, prompt.text) for prompt in prompts]
    kept = [ids for ids in encoded if len(ids) + max_new_tokens <= block_size]
    if len(kept) < len(encoded):
        print(f"{len(encoded) - len(kept)} of {len(encoded)} prompts and --max-new-tokens "
              f"{max_new_tokens} are longer than the context of {block_size} and left out")
    check(kept, f"none of {len(encoded)} prompts leaves room for an answer of --max-new-tokens "
                f"{max_new_tokens} in the context of {block_size} tokens; lower it")
    return kept


def pack(tokenizer, documents):
    """Documents -> one long row of ids, an end-of-text token after each."""
    return torch.tensor([i for document in documents
                         for i in tokenizer.encode(document) + [tokenizer.eot]])


def draw_windows(stream, B, T, generator):
    """B random windows of T ids; the mask is all ones."""
    check(len(stream) >= T, f"a text of {len(stream)} tokens is shorter than a window of {T}; "
                            "give --documents more text")
    starts = torch.randint(len(stream) - T + 1, (B,), generator=generator)
    tokens = stream[starts[:, None] + torch.arange(T)]
    return tokens, torch.ones(B, T)


def limit_rows(config, logits=2 ** 24):
    """How many full rows have no more than so many logits; for evaluation, without gradients."""
    return max(1, logits // (config.block_size * config.vocab_size))


def batch_by_length(lengths, size, generator):
    """Shuffled batches of indices of like length, so that little is padding: sorted within
    runs of 16 batches."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for i in range(0, len(order), 16 * size):
        run = sorted(order[i:i + 16 * size], key=lambda j: lengths[j])
        batches += [run[j:j + size] for j in range(0, len(run), size)]
    return [batches[j] for j in torch.randperm(len(batches), generator=generator)]


def batch_prompts(items, size, generator):
    """Batches of prompts with the same number of answers, so that scores form a (B, K) table."""
    batches = []
    for k in sorted({len(responses) for _, responses in items}):
        group = [i for i, (_, responses) in enumerate(items) if len(responses) == k]
        lengths = [len(items[i][0]) + max(map(len, items[i][1])) for i in group]
        batches += [[group[j] for j in rows] for rows in batch_by_length(lengths, size, generator)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
