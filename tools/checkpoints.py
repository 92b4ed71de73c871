"""Checkpoints: one file with the configuration, the tokenizer and the weights of a model."""

import dataclasses
from pathlib import Path

import torch

from data.tokenizer import Tokenizer
from model import GPT, GPTConfig
from tools.flags import atomic_write, check, fail

MADE_BY = {"base": "python pretrain.py", "sft": "python sft.py", "reward": "python reward.py",
           "ppo": "python ppo.py", "ppo_ptx": "python ppo.py --ptx 1", "dpo": "python dpo.py"}


def save_checkpoint(path, model, gpt_config, tokenizer):
    with atomic_write(path, "wb") as file:
        torch.save(dict(config=dataclasses.asdict(gpt_config), tokenizer=tokenizer.state(),
                        weights=model.state_dict()), file)


def load_checkpoint(path, build_model, device):
    """-> build_model(GPTConfig) with the saved weights, in evaluation mode, and the tokenizer"""
    made_by = MADE_BY.get(Path(path).stem, "bash train_all.sh")
    check(Path(path).is_file(), f"{path} not found; run `{made_by}` first")
    checkpoint = torch.load(path, map_location=device, weights_only=True)
    model = build_model(GPTConfig(**checkpoint["config"])).to(device)
    try:
        model.load_state_dict(checkpoint["weights"])
    except RuntimeError:
        fail(f"{path} does not hold a {type(model).__name__}; a reward model is not a policy")
    return model.eval(), Tokenizer(**checkpoint["tokenizer"])


def load_gpt(path, device="cpu"):
    """-> GPT in evaluation mode, tokenizer"""
    return load_checkpoint(path, GPT, device)
