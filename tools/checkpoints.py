"""A checkpoint: one file with configuration, tokenizer and weights that needs nothing else."""

import dataclasses
import zipfile
from pathlib import Path

import tools               # before torch: it says how torch's threads wait
import torch

from data.tokenizer import Tokenizer
from tools.flags import check, fail, write_whole

MADE_BY = {"base": "python sft.py --stage pretrain", "sft": "python sft.py",
           "reward": "python reward.py", "ppo": "python ppo.py",
           "ppo_ptx": "python ppo.py --ptx 1", "dpo": "python dpo.py"}


def save(path, model, config, tokenizer):
    """Whole or not at all."""
    with write_whole(path, "wb", errors=(OSError, RuntimeError)) as file:
        torch.save(dict(stage=Path(path).stem, config=dataclasses.asdict(config),
                        tokenizer=tokenizer.state(), weights=model.state_dict()), file)


def read_whole(path, device="cpu"):
    """torch.load without code, after a look at the checksums; any exception: it is damaged."""
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
    return torch.load(path, map_location=device, weights_only=True)


def load(path, build, device="cpu"):
    """-> what `build` makes of the saved configuration, with the saved weights in evaluation mode,
    and the tokenizer"""
    made_by = MADE_BY.get(Path(path).stem, "bash train_all.sh")
    check(Path(path).is_file(), f"{path} not found; run `{made_by}` first")
    try:
        checkpoint = read_whole(path, device)
        config, weights = checkpoint["config"], checkpoint["weights"]
        tokenizer = Tokenizer.from_state(checkpoint["tokenizer"])
        model = build(config)
    except BaseException as e:
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":    # tiktoken's
            raise
        fail(f"{path} is damaged or not a checkpoint of this project; "
             f"delete it and run `{made_by}` again")
    try:
        model.to(device).load_state_dict(weights)
    except (RuntimeError, TypeError):
        fail(f"{path} holds another kind of model than is needed here (a reward model is no "
             "policy); name another, or delete it and run its stage again")
    return model.eval(), tokenizer
