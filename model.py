"""The policy pi(y | x): a small GPT, its log-probabilities, and sampling from it.

The network is GPT-2's (Radford et al., 2019), with its parameter names: pre-norm blocks, learned
positions, tanh GELU, tied embeddings. InstructGPT's is GPT-3's: the same, but for sparse attention
in every other layer.

Notation: x is a prompt and y a response, both token ids. B batch, T tokens, C channels, H heads,
D head size, L layers, V vocabulary, K responses per prompt, N any number of sequences; () is the
shape of a scalar. "The paper" is InstructGPT (arXiv 2203.02155), unless another is named.

A batch is `(tokens, mask)`, both (B, T), right-padded. mask[b, t] is 1 if the loss is taken over
tokens[b, t]: on a response with its end-of-text token `eos`, or on a whole window of pretraining
text; and 0 on prompts and padding. The first token of a row is never predicted. Attention is
causal, so right padding needs no attention mask.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# --- network --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int
    block_size: int = 128
    n_layer: int = 4
    n_head: int = 3                # differs from the paper: heads of 32 channels, not 128
    n_embd: int = 96
    dropout: float = 0.0


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        causal_mask = torch.full((config.block_size, config.block_size), -torch.inf).triu(1)
        self.register_buffer("causal_mask", causal_mask, persistent=False)

    def forward(self, x, cache=None, start=0):
        """softmax(q k^T / sqrt(D) + causal mask) v.  (B, T, C) -> (B, T, C)
        cache = (keys, values), each (B, H, max length, D), holds the positions before `start` and
        receives the new ones; None in training, where start is 0."""
        B, T, C = x.shape
        stop = start + T
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                # (B, H, T, D) each
        if cache is not None:
            keys, values = cache
            keys[:, :, start:stop] = k
            values[:, :, start:stop] = v
            k, v = keys[:, :, :stop], values[:, :, :stop]                   # (B, H, stop, D) each
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)         # (B, H, T, stop)
        scores = scores + self.causal_mask[start:stop, :stop]
        weights = self.dropout(scores.softmax(dim=-1))
        y = (weights @ v).transpose(1, 2).reshape(B, T, C)
        return self.dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x, cache=None, start=0):
        x = x + self.attn(self.ln_1(x), cache, start)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    # the dtype in which the blocks of every model compute; tools/device.py sets it
    block_dtype = torch.float32

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            wpe=nn.Embedding(config.block_size, config.n_embd),
            drop=nn.Dropout(config.dropout),
            h=nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            ln_f=nn.LayerNorm(config.n_embd)))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight        # weight tying, as in GPT-2
        self.init_weights()

    def init_weights(self):
        # differs from GPT-2: std 0.1 for embeddings and 0.8 / sqrt(C) for matrices, not 0.02
        C, T, L = self.config.n_embd, self.config.block_size, self.config.n_layer
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif name.endswith("wte.weight"):
                nn.init.normal_(p, std=0.1)
            elif name.endswith(("c_attn.weight", "c_fc.weight")):
                nn.init.normal_(p, std=0.8 / math.sqrt(C))
            elif name.endswith("c_proj.weight"):
                # 2 L of these add to the residual stream, whose variance should not grow with L
                nn.init.normal_(p, std=0.8 / math.sqrt(C))
                p.data.div_(math.sqrt(2 * L))
        # differs from GPT-2: position embeddings are initialised to sinusoids with periods from
        # 2 pi to almost 2 pi T tokens, so that copying emerges sooner
        angle = torch.arange(T)[:, None] * torch.exp(-math.log(T) * torch.arange(0, C, 2) / C)
        sinusoids = torch.stack((angle.sin(), angle.cos()), dim=-1).view(T, C)
        self.transformer.wpe.weight.data.copy_(0.1 * sinusoids)

    def hidden(self, tokens, cache=None, start=0):
        """Hidden states after the final layer norm.  (B, T) -> (B, T, C)

        When sampling, `tokens` are positions start, start + 1, ... of longer sequences. cache,
        (L, 2, B, H, max length, D), holds keys and values of all earlier positions of every layer
        and is updated in place.
        """
        net = self.transformer
        stop = start + tokens.shape[1]
        assert stop <= self.config.block_size, (
            f"{stop} tokens do not fit into a context of {self.config.block_size}")
        if cache is None:
            cache = [None] * len(net.h)
        x = net.drop(net.wte(tokens) + net.wpe.weight[start:stop])
        use_autocast = self.block_dtype != torch.float32
        with torch.autocast(x.device.type, self.block_dtype, enabled=use_autocast):
            for block, layer_cache in zip(net.h, cache):
                x = block(x, layer_cache, start)
        return net.ln_f(x)

    def forward(self, tokens):
        """Logits of the next token.  (B, T) -> (B, T, V)"""
        return self.lm_head(self.hidden(tokens))


# --- log-probabilities ----------------------------------------------------------------------------


def token_logprobs(logits, tokens):
    """log pi(token t+1 | tokens up to t), always float32.  (B, T, V), (B, T) -> (B, T-1)

        tokens    x0   x1   x2   y0   y1   eos        logits at t predict tokens[:, t+1]:
        logits    l0   l1   l2   l3   l4   l5         l2 predicts y0, l4 eos; l5 is not used
    """
    assert logits.shape[:2] == tokens.shape, (
        f"logits {tuple(logits.shape)} for tokens {tuple(tokens.shape)}")
    logp = logits[:, :-1].float().log_softmax(dim=-1)                       # (B, T-1, V)
    # the shift by one: column t is about tokens[:, t+1] and goes with mask[:, 1:]
    return logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)


def masked_mean(x, mask):
    """Mean of x where mask is 1, over the whole batch (not the mean of per-row means).  -> ()"""
    assert x.shape == mask.shape, f"{tuple(x.shape)} with a mask of {tuple(mask.shape)}"
    return (x * mask).sum() / mask.sum()


def last_index(mask):
    """Index of the last 1 of each row; 0 for a row without any.  (B, T) -> (B,)"""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)


# --- sampling -------------------------------------------------------------------------------------


@torch.no_grad()
def sample(model, prompts, max_new_tokens, temperature=1.0, eos=None):
    """Samples a response to each prompt (a list of token ids) until eos, max_new_tokens or a full
    context. -> tokens (B, T), mask (B, T), which is 1 on the responses

    Decoding goes column by column and starts where the shortest prompt ends. Where another prompt
    is longer, its row keeps its own token, so prompts need no left padding.
    """
    config, device = model.config, model.lm_head.weight.device
    prompt_length = torch.tensor([len(prompt) for prompt in prompts], device=device)
    max_length = (prompt_length + max_new_tokens).clamp(max=config.block_size)
    B, T = len(prompts), int(max_length.max())
    tokens = torch.zeros(B, T, dtype=torch.long)
    for row, prompt in zip(tokens, prompts):
        row[:len(prompt)] = torch.tensor(prompt)
    tokens = tokens.to(device)
    mask = torch.zeros(B, T, device=device)
    finished = torch.zeros(B, dtype=torch.bool, device=device)
    cache = torch.zeros(config.n_layer, 2, B, config.n_head, T, config.n_embd // config.n_head,
                        device=device, dtype=model.block_dtype)

    rows = torch.arange(B, device=device)    # still decoded; all, but for the end of the loop
    start = 0
    for t in range(int(prompt_length.min()), T):
        # the first pass reads all columns before t, later ones only column t - 1
        hidden = model.hidden(tokens[rows, start:t], cache, start)
        next_tokens = sample_token(model.lm_head(hidden[:, -1]), temperature)
        # past this row's prompt and before its end; elsewhere the row keeps its token
        in_response = (t >= prompt_length[rows]) & ~finished[rows]
        tokens[rows, t] = torch.where(in_response, next_tokens, tokens[rows, t])
        mask[rows, t] = in_response.float()
        finished[rows] |= in_response & ((next_tokens == eos) | (t + 1 == max_length[rows]))
        start = t
        if finished.all():
            break
        # only for speed: drop finished rows from the cache once they are a fifth
        if finished[rows].float().mean() > 0.2:
            unfinished = ~finished[rows]
            rows, cache = rows[unfinished], cache[:, :, unfinished]
    T = int(last_index(mask).max()) + 1
    return tokens[:, :T], mask[:, :T]


def sample_token(logits, temperature):
    """One token per row.  (B, V) -> (B,). Draws u uniformly and takes the first token whose
    cumulative probability exceeds u: torch.multinomial in a seventh of its time on a CPU."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    cdf = (logits.float() / temperature).softmax(dim=-1).cumsum(dim=-1)
    u = torch.rand(len(cdf), 1, device=cdf.device) * cdf[:, -1:]
    index = torch.searchsorted(cdf, u, right=True).squeeze(1)
    return index.clamp(max=cdf.shape[-1] - 1)                # against rounding
