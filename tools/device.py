"""Seed, device and precision, decided once by `start`."""

import tools               # before torch: it says how torch's threads wait
import torch

from tools.flags import check, fail

precision = dict(dtype=torch.float32)      # what the blocks compute in


def start(config):
    """Seeds everything, sets the precision. -> device, a CPU generator for batches"""
    torch.manual_seed(config.seed)
    device, wanted = getattr(config, "device", "cpu"), getattr(config, "precision", "auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        fail(f"--device {device} is not there; use auto or cpu")
    check(wanted in ("auto", "float32", "bfloat16"),
          f"--precision {wanted}: float32, bfloat16 or auto")
    half = wanted == "bfloat16" or wanted == "auto" and device.startswith("cuda")
    precision["dtype"] = torch.bfloat16 if half else torch.float32
    torch.set_float32_matmul_precision("high" if half else "highest")    # of the heads
    return torch.device(device), torch.Generator().manual_seed(config.seed)


def autocast(device):
    """Inside, matrix products are in the precision of the blocks; weights stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision["dtype"] != torch.float32)
