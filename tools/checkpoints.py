"""Checkpoints: one file with the configuration, the tokenizer and the weights of a model."""

import dataclasses
from pathlib import Path

import torch

from data.tokenizer import Tokenizer
from model import GPT, GPTConfig
from tools.flags import atomic_write, check, fail

MADE_BY = {"base": "python pretrain.py", "sft": "python sft.py", "reward": "python reward.py",
           "ppo": "python ppo.py", "ppo_ptx": "python ppo.py --ptx 1", "dpo": "python dpo.py"}


def check_finite(model, path):
    check(all(weight.isfinite().all() for weight in model.state_dict().values()),
          f"{path} is not saved, since weights are not finite; try a lower --lr")


def save_checkpoint(path, model, gpt_config, tokenizer):
    check_finite(model, path)
    with atomic_write(path, "wb") as file:
        torch.save(dict(config=dataclasses.asdict(gpt_config), tokenizer=tokenizer.state(),
                        weights=model.state_dict()), file)


def load_checkpoint(path, build_model, device, partner=None):
    """-> build_model(GPTConfig) with the saved weights, in evaluation mode, and the tokenizer.
    partner: (model, tokenizer) with which it will be used; they must agree about texts"""
    made_by = MADE_BY.get(Path(path).stem, "bash train_all.sh")
    check(Path(path).is_file(), f"{path} not found; run `{made_by}` first")
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        model = build_model(GPTConfig(**checkpoint["config"])).to(device)
        tokenizer = Tokenizer(**checkpoint["tokenizer"])
        weights = checkpoint["weights"]
    except Exception:                                        # whatever torch.load raises
        fail(f"{path} is damaged, or no checkpoint of this project; run `{made_by}` again")
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        fail(f"{path} does not hold a {type(model).__name__}; a reward model is not a policy")
    if partner:
        other_model, other_tokenizer = partner
        check(tokenizer.state() == other_tokenizer.state()
              and model.config.block_size == other_model.config.block_size,
              f"{path} has another tokenizer or context than the model that it is used with; "
              "both must come from the same base model")
    return model.eval(), tokenizer


def load_gpt(path, device="cpu", partner=None):
    """-> GPT in evaluation mode, tokenizer"""
    return load_checkpoint(path, GPT, device, partner)
