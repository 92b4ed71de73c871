"""Step 1: imitate. Next-token prediction on documents (--stage pretrain), then on demonstrations (--stage sft).

Both minimise the same loss, -log pi(token | tokens before it), averaged over the tokens under the mask. In pretraining
the mask is all ones; in supervised fine-tuning it covers the response and its end-of-text token, never the prompt
(InstructGPT, arXiv 2203.02155, section 3.5; hyperparameters appendix C.1 and C.3).

    python sft.py --stage pretrain     documents of the small world                        -> out/base.pt
    python sft.py --stage sft          out/base.pt, demonstrations, 10 % pretraining text  -> out/sft.pt
"""

import math
from dataclasses import dataclass

import torch
from tqdm import tqdm

from data.batches import by_length, collate, encode_example, pack, windows
from data.tokenizer import Tokenizer, train_ranks
from data.world import demonstrations, documents
from model import GPT, GPTConfig, Metrics, adamw, check, flags, load_gpt, masked_mean, run, save, start, token_logprobs


@dataclass(frozen=True)
class Config:
    stage: str = "sft"             # pretrain or sft
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda or auto
    vocab_size: int = 1024         # pretrain: byte-pair ranks plus the end-of-text token
    block_size: int = 128          # pretrain: context in tokens; paper 2,048
    n_layer: int = 4               # pretrain: blocks
    n_head: int = 3                # pretrain: heads
    n_embd: int = 96               # pretrain: channels
    documents: int = 12000         # pretrain: documents of the small world
    steps: int = 900               # pretrain: optimiser steps
    pretrain_lr: float = 4e-3      # pretrain: peak learning rate
    demonstrations: int = 4000     # sft: demonstrations; paper 12,725
    epochs: int = 3                # sft: passes over them; paper 2 for the model that PPO starts from
    lr: float = 1.5e-3             # sft: peak learning rate; paper 5e-6 to 1e-5
    batch: int = 32                # sequences a step; paper 32
    mix: float = 0.1               # sft: share of pretraining text in a batch; paper 0.1
    weight_decay: float = 0.1      # AdamW


# --- loss ------------------------------------------------------------------------------------------------------------


def lm_loss(logits, tokens, mask):
    """Mean over masked tokens of -log pi. (B, T, V), (B, T), (B, T) -> ()"""
    return -masked_mean(token_logprobs(logits, tokens), mask[:, 1:])


def learning_rate(step, steps, peak):
    """Cosine from the peak to 10 % of it (appendix C.1)."""
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))
