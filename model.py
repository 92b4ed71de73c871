"""The policy pi(y|x): a small GPT-2, its log-probs, and how to sample from it.

The network of Radford et al. (2019) as in the paper's lineage: pre-norm blocks, learned positions,
tanh GELU, tied embeddings, GPT-2's parameter names. Every later stage starts from this file.

Shapes everywhere: B batch, T tokens, C channels, H heads, D head size, V vocabulary, K answers per
prompt, N pairs. A batch is `(tokens, mask)`, both (B, T), right-padded; mask[b, t] = 1 where
tokens[b, t] is one that we learn from: the response with its end-of-text token, or all of a
document.
"""

import math
from dataclasses import dataclass

import tools               # before torch: it says how torch's threads wait
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from data.batches import PAD, encode_prompt
from tools.checkpoints import load
from tools.device import autocast, precision
from tools.flags import check

# --- network --------------------------------------------------------------------------------------


# a checkpoint's configuration may be anybody's: more would take minutes and all memory to refuse
MOST = dict(vocab_size=2 ** 20, block_size=2 ** 14, n_layer=1000, n_head=2 ** 10, n_embd=2 ** 14)


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int
    block_size: int = 128
    n_layer: int = 4
    n_head: int = 3                # differs from the paper: heads of 32 channels; GPT-2's have 64
    n_embd: int = 96
    dropout: float = 0.0

    def __post_init__(self):
        for name, most in MOST.items():
            size = getattr(self, name)
            assert type(size) is int and 0 < size <= most, f"{name} {size}: 1 to {most}"
        assert self.n_embd % self.n_head == 0 == self.n_embd % 2, (
            f"n_embd {self.n_embd} must be even and a multiple of n_head {self.n_head}")
        assert 0 <= self.dropout < 1, f"dropout {self.dropout}: 0 to below 1"


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        future = torch.full((config.block_size, config.block_size), -torch.inf).triu(1)
        self.register_buffer("future", future, persistent=False)

    def forward(self, x, cache=None, start=0):
        """softmax(q k^T / sqrt(D) + causal mask) v. (B, T, C) -> (B, T, C)

        x holds the positions from `start` on. cache is a pair (keys, values) of shape
        (B, H, longest, D), written in place; None in training.
        """
        B, T, C = x.shape
        stop = start + T
        # q, k, v are (B, H, T, D) each
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        if cache is not None:
            cache[0][:, :, start:stop] = k
            cache[1][:, :, start:stop] = v
            k, v = cache[0][:, :, :stop], cache[1][:, :, :stop]
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)               # (B, H, T, stop)
        scores += self.future[start:stop, :stop]                # no position sees a later one
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        y = (weights @ v).transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dropout = config.dropout
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x):
        x = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(config.n_embd), Attention(config)
        self.ln_2, self.mlp = nn.LayerNorm(config.n_embd), MLP(config)

    def forward(self, x, cache=None, start=0):
        x = x + self.attn(self.ln_1(x), cache, start)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            wpe=nn.Embedding(config.block_size, config.n_embd),
            h=nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            ln_f=nn.LayerNorm(config.n_embd)))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.initialise()

    def initialise(self):
        # differs from the paper: weights start with a deviation of 0.1 or 0.8 / sqrt(C), not 0.02
        C, T, L = self.config.n_embd, self.config.block_size, self.config.n_layer
        for name, p in self.named_parameters():
            if name.endswith(("wte.weight", "wpe.weight")):
                nn.init.normal_(p, std=0.1)
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.8 / math.sqrt(C))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
            if name.endswith("c_proj.weight"):
                p.data.div_(math.sqrt(2 * L))          # what is added to the residual stream
        # differs from the paper: learned positions start as sinusoids, so copying appears early
        angle = torch.arange(T)[:, None] * torch.exp(-math.log(T) * torch.arange(0, C, 2) / C)
        waves = torch.stack((angle.sin(), angle.cos()), dim=-1).view(T, C)
        self.transformer.wpe.weight.data.copy_(0.1 * waves)

    def hidden(self, tokens, cache=None, start=0):
        """(B, T) -> (B, T, C), after the final layer norm. cache: a pair for each layer,
        (L, 2, B, H, longest, D)."""
        net = self.transformer
        stop = start + tokens.shape[1]
        assert stop <= self.config.block_size, (
            f"{stop} tokens do not fit a context of {self.config.block_size}")
        x = net.wte(tokens) + net.wpe.weight[start:stop]
        x = F.dropout(x, self.config.dropout, self.training)                     # (B, T, C)
        with autocast(x.device):
            for i, block in enumerate(net.h):
                x = block(x, None if cache is None else cache[i], start)
        return net.ln_f(x)

    def forward(self, tokens):
        """(B, T) -> (B, T, V): logits at every position."""
        return self.lm_head(self.hidden(tokens))


# --- log-probs ------------------------------------------------------------------------------------


def token_logprobs(logits, tokens):
    """log pi(token t+1 | tokens up to t). (B, T, V), (B, T) -> (B, T-1), always float32

        tokens    x0   x1   x2   y0   y1   eos        logits at t speak about tokens[:, t+1]:
        logits    l0   l1   l2   l3   l4   l5         l2 is asked for y0, l4 for eos, l5 for nothing
    """
    assert logits.shape[:2] == tokens.shape, (
        f"logits {tuple(logits.shape)} for tokens {tuple(tokens.shape)}")
    logp = logits[:, :-1].float().log_softmax(dim=-1)                      # (B, T-1, V)
    return logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)         # the only shift of logits


def masked_mean(x, mask):
    """The mean of x where mask is 1, over all of it, not row by row. -> ()"""
    assert x.shape == mask.shape, f"{tuple(x.shape)} under a mask of {tuple(mask.shape)}"
    return (x * mask).sum() / mask.sum()


def last_index(mask):
    """Where each row has its last 1. (B, T) -> (B,)"""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)


# --- sampling -------------------------------------------------------------------------------------


@torch.no_grad()
def sample(model, prompts, max_new_tokens, temperature=1.0, eos=None, generator=None):
    """Continues each prompt (a list of ids) until eos or max_new_tokens. -> tokens, mask (B, T)

    Column t is filled for all rows at once, from the end of the shortest prompt on; a longer prompt
    keeps its own tokens. temperature 0 takes the most probable token.
    """
    device, config = model.lm_head.weight.device, model.config
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    assert 0 < lengths.min() and lengths.max() < config.block_size, (
        f"prompts of {lengths.min()} to {lengths.max()} tokens")
    limit = (lengths + max_new_tokens).clamp(max=config.block_size)        # where a row has to stop
    B, T = len(prompts), int(limit.max())
    tokens = torch.full((B, T), PAD)
    for row, prompt in zip(tokens, prompts):
        row[:len(prompt)] = torch.tensor(prompt)
    tokens, mask = tokens.to(device), torch.zeros(B, T, device=device)
    cache = torch.empty(config.n_layer, 2, B, config.n_head, T, config.n_embd // config.n_head,
                        device=device, dtype=precision["dtype"])

    rows, done, start = torch.arange(B, device=device), torch.zeros(B, device=device).bool(), 0
    for t in range(int(lengths.min()), T):
        hidden = model.hidden(tokens[rows, start:t], cache, start)
        start = t
        picked = pick(model.lm_head(hidden[:, -1]).float(), temperature, generator)
        write = (t >= lengths[rows]) & ~done[rows]                  # past the prompt, not finished
        tokens[rows, t] = torch.where(write, picked, tokens[rows, t])
        mask[rows, t] = write.float()
        done[rows] |= write & ((picked == eos) | (t + 1 == limit[rows]))
        # efficiency: a look makes a GPU wait, and rows that leave copy the cache
        if device.type == "cpu" or t % 16 == 0:
            if done.all():
                break
            if done[rows].sum() > 0.2 * len(rows):
                rows, cache = rows[~done[rows]], cache[:, :, ~done[rows]]
    T = int(mask.any(dim=0).nonzero().max()) + 1
    return tokens[:, :T], mask[:, :T]


def pick(logits, temperature, generator):
    """(B, V) -> (B,): a draw per row by inverting the CDF (torch.multinomial is slow on a CPU)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    cdf = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    u = torch.rand(len(cdf), 1, generator=generator, device=cdf.device) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True).squeeze(1).clamp(max=cdf.shape[-1] - 1)


def respond(model, tokenizer, texts, max_new_tokens, temperature=1.0, generator=None, bar=None):
    """Answers to prompts given as text. -> a list of response ids for each, in order; the last is
    end-of-text if it ended. bar: the title of a progress bar."""
    check(max_new_tokens > 0, "--max-new-tokens must be at least 1")
    prompts = [encode_prompt(tokenizer, text) for text in texts]
    for text, ids in zip(texts, prompts):
        check(len(ids) < model.config.block_size,
              f"a prompt has {len(ids)} tokens, the context {model.config.block_size}; "
              f"shorten it: {text[:40]!r}...")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths end together
    size = count_cached_rows(model.config, max(map(len, prompts), default=0) + max_new_tokens)
    responses = [None] * len(prompts)
    for first in tqdm(range(0, len(order), size), desc=bar, disable=bar is None):
        rows = order[first:first + size]
        tokens, mask = sample(model, [prompts[i] for i in rows], max_new_tokens, temperature,
                              tokenizer.eot, generator)
        for i, row, kept in zip(rows, tokens, mask):
            responses[i] = row[kept > 0].tolist()
    return responses


def count_cached_rows(config, T, most=512, floats=2 ** 29):
    """How many rows of T tokens are sampled at once: their cache is no more than 2 GB."""
    return max(1, min(most, floats // (2 * config.n_layer * config.n_embd * T)))


def load_gpt(path, device="cpu"):
    """A checkpoint -> GPT in evaluation mode, tokenizer"""
    return load(path, lambda config: GPT(GPTConfig(**config)), device)
