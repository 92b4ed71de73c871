"""The policy pi(y|x): a small GPT-2, its log-probs, and how to sample from it.

The network of Radford et al. (2019) as in the paper's lineage: pre-norm blocks, learned positions,
tanh GELU, tied embeddings, GPT-2's parameter names. Every later stage starts from this file.

    python model.py out/ppo.pt                       a small chat
    python model.py out/ppo.pt --prompt "..."        one answer

Shapes everywhere: B batch, T tokens, C channels, H heads, D head size, V vocabulary, K answers a
prompt. Arrays about actions are (B, T-1): index t speaks about tokens[:, t+1].
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

# first, since it says how torch's threads wait
from plumbing import autocast, blocks, check, fail, flags, load_whole, run, start, whole
import torch
from torch import nn
from torch.nn import functional as F

from data.batches import PAD, encode_prompt
from data.tokenizer import Tokenizer

# --- network --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int
    block_size: int = 128
    n_layer: int = 4
    n_head: int = 3
    n_embd: int = 96
    dropout: float = 0.0


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
            for kept, new in zip(cache, (k, v)):
                kept[:, :, start:stop] = new
            k, v = (kept[:, :, :stop] for kept in cache)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
        scores += self.future[start:stop, :stop]                                  # -inf
        weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)  # (B, H, T, stop)
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
        self.apply(self.init)

    def init(self, module):
        """GPT-2's, but wider matrices for so narrow a network, and positions start as sinusoids."""
        C, T, L = self.config.n_embd, self.config.block_size, self.config.n_layer
        if isinstance(module, nn.Linear) and module is not self.lm_head:
            nn.init.normal_(module.weight, std=0.8 / math.sqrt(C))
            nn.init.zeros_(module.bias)
        if isinstance(module, (Attention, MLP)):
            module.c_proj.weight.data.div_(math.sqrt(2 * L))  # residual projections are scaled down
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
        if module is self:  # differs from the paper: learned positions start as waves
            angle = torch.arange(T)[:, None] * torch.exp(-math.log(T) * torch.arange(0, C, 2) / C)
            waves = torch.stack((angle.sin(), angle.cos()), dim=-1).view(T, C)
            self.transformer.wpe.weight.data.copy_(0.1 * waves)

    def hidden(self, tokens, cache=None, start=0):
        """(B, T) -> (B, T, C), after the final layer norm."""
        net = self.transformer
        stop = start + tokens.shape[1]
        assert stop <= self.config.block_size, (
            f"{stop} tokens do not fit a context of {self.config.block_size}")
        x = net.wte(tokens) + net.wpe.weight[start:stop]
        x = F.dropout(x, self.config.dropout, self.training)
        with autocast(x.device):
            for i, block in enumerate(net.h):
                x = block(x, None if cache is None else cache[i], start)
        return net.ln_f(x)

    def forward(self, tokens):
        """(B, T) -> (B, T, V): logits at every position, always."""
        return self.lm_head(self.hidden(tokens))


# --- log-probs ------------------------------------------------------------------------------------


def token_logprobs(logits, tokens):
    """log pi(token t+1 | tokens up to t), the only shift by one. (B, T, V), (B, T) -> (B, T-1)"""
    assert logits.shape[:2] == tokens.shape, (
        f"logits {tuple(logits.shape)} for tokens {tuple(tokens.shape)}")
    logp = logits.float().log_softmax(dim=-1)                 # the last position speaks of none
    return logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)


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
    """Continues each prompt (a list of ids) until eos or max_new_tokens.

    -> tokens, mask (B, T) under the contract. All rows share a position, which starts at the end of
    the shortest prompt; a longer prompt keeps its own tokens. Rows that have finished leave the
    batch. temperature 0 takes the most probable token.
    """
    device, config = model.lm_head.weight.device, model.config
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    assert 0 < lengths.min() and lengths.max() < config.block_size, (
        f"prompts of {lengths.min()} to {lengths.max()} tokens")
    total = int(min(lengths.max() + max_new_tokens, config.block_size))
    tokens = torch.full((len(prompts), total), PAD)
    for row, prompt in zip(tokens, prompts):
        row[:len(prompt)] = torch.tensor(prompt)
    tokens, first = tokens.to(device), lengths.to(device)  # first[b]: where row b's response begins
    stop = (first + max_new_tokens).clamp(max=total)       # stop[b]: where it ends without eos
    alive = torch.arange(len(prompts), device=device)      # rows still in the batch
    cache = torch.empty(config.n_layer, 2, len(prompts), config.n_head, total,
                        config.n_embd // config.n_head, device=device, dtype=blocks["dtype"])

    start = 0
    for t in range(int(lengths.min()), total):             # the position that gets its token now
        hidden = model.hidden(tokens[alive, start:t], cache, start)
        picked = pick(model.lm_head(hidden[:, -1]).float(), temperature, generator)
        own, ends = t < first[alive], picked == eos
        tokens[alive, t] = torch.where(own, tokens[alive, t], picked)
        stop[alive] = torch.where(ends & ~own, stop[alive].clamp(max=t + 1), stop[alive])
        start, going = t, stop[alive] > t + 1
        if device.type != "cpu" and t % 16:                # a look at `going` waits for the GPU
            continue
        if not going.any():
            break
        if going.sum() < 0.8 * len(alive):                 # copies the cache: not for each row
            alive, cache = alive[going], cache[:, :, going]
    tokens, position = tokens[:, :stop.max()], torch.arange(int(stop.max()), device=device)
    mask = (position >= first[:, None]) & (position < stop[:, None])
    return tokens.masked_fill(position >= stop[:, None], PAD), mask.float()


def rows_cached(config, T, most=512, floats=2 ** 29):
    """How many rows of T tokens are sampled at once: their cache is no more than 2 GB."""
    return max(1, min(most, floats // (2 * config.n_layer * config.n_embd * T)))


def pick(logits, temperature, generator):
    """(B, V) -> (B,): one draw a row by inverting the CDF (torch.multinomial is slow on a CPU)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    cdf = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    u = torch.rand(len(cdf), 1, generator=generator, device=cdf.device) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True).squeeze(1).clamp(max=cdf.shape[-1] - 1)


def respond(model, tokenizer, texts, max_new_tokens, temperature=1.0, generator=None):
    """Texts -> a list of response ids for each, in order; the last is end-of-text if it ended."""
    check(max_new_tokens > 0, "--max-new-tokens must be at least 1")
    prompts = [encode_prompt(tokenizer, text) for text in texts]
    for text, ids in zip(texts, prompts):
        check(len(ids) < model.config.block_size,
              f"a prompt has {len(ids)} tokens, the context {model.config.block_size}; "
              f"shorten it: {text[:40]!r}...")
    batch = rows_cached(model.config, max(map(len, prompts), default=0) + max_new_tokens)
    responses = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths end together
    for rows in (order[i:i + batch] for i in range(0, len(order), batch)):
        tokens, mask = sample(model, [prompts[i] for i in rows], max_new_tokens, temperature,
                              tokenizer.eot, generator)
        for i, ids, kept in zip(rows, tokens.tolist(), mask.tolist()):
            responses[i] = [token for token, keep in zip(ids, kept) if keep]
    return responses


# --- checkpoints ----------------------------------------------------------------------------------


def save(path, stage, model, config, tokenizer):
    """Writes a checkpoint, which needs nothing else to be loaded."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole(path, errors=(OSError, RuntimeError)) as file:
        torch.save(dict(stage=stage, config=dataclasses.asdict(config),
                        tokenizer=tokenizer.state(), weights=model.state_dict()), file)


def load(path, made_by, device="cpu"):
    """A checkpoint -> GPT config, tokenizer, weights."""
    check(Path(path).is_file(), f"{path} not found; run `{made_by}` first")
    try:
        checkpoint = load_whole(path, device)
        return (GPTConfig(**checkpoint["config"]), Tokenizer.from_state(checkpoint["tokenizer"]),
                checkpoint["weights"])
    except Exception:
        fail(f"{path} is damaged or not a checkpoint of this project; "
             f"delete it and run `{made_by}` again")


def load_weights(model, weights, path):
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError):
        fail(f"{path} holds another kind of model than is needed here (a reward model is no "
             "policy); name another, or delete it and run its stage again")
    return model.eval()


def load_gpt(path, made_by, device="cpu"):
    """-> GPT in evaluation mode, tokenizer"""
    config, tokenizer, weights = load(path, made_by, device)
    return load_weights(GPT(config).to(device), weights, path), tokenizer


# --- chat -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    checkpoint: str = ""           # such as out/ppo.pt; may stand without its flag
    prompt: str = ""               # answer this once instead of starting a chat
    temperature: float = 0.7       # 0 takes the most probable token
    max_new_tokens: int = 48       # longest answer
    seed: int = 0                  # of the sampling


def main():
    """Answers one prompt, or each line typed until an empty one; the models know no dialogue."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv.insert(1, "--checkpoint")
    config = flags(Config, __doc__)
    check(config.checkpoint, "name a checkpoint: python model.py out/ppo.pt")
    check(config.temperature >= 0, f"--temperature {config.temperature}: 0 or more")
    start(config)
    model, tokenizer = load_gpt(config.checkpoint, "bash train_all.sh")
    print("an empty line ends the chat" if not config.prompt else "",
          end="" if config.prompt else "\n")
    while prompt := config.prompt or ask():
        ids, = respond(model, tokenizer, [prompt], config.max_new_tokens, config.temperature)
        print(tokenizer.decode(ids), "" if ids[-1] == tokenizer.eot else "...")
        if config.prompt:
            break


def ask():
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    run(main)
