"""Seed, device and precision."""

import torch

from model import GPT
from tools.flags import check


def setup(config):
    """Seeds torch's global generator, which draws batches and samples (texts of the small world are
    drawn by generators of their own, from the same seed), and sets the precision. -> device"""
    torch.manual_seed(config.seed)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check(device in ("cpu", "cuda", "mps"), f"--device {device} must be cpu, cuda, mps or auto")
    check(device != "cuda" or torch.cuda.is_available(), "--device cuda is not available")
    check(device != "mps" or torch.backends.mps.is_available(), "--device mps is not available")
    check(config.precision in ("auto", "float32", "bfloat16"),
          f"--precision {config.precision} must be float32, bfloat16 or auto")
    use_bfloat16 = config.precision == "bfloat16" or (config.precision == "auto"
                                                      and computes_bfloat16(device))
    GPT.block_dtype = torch.bfloat16 if use_bfloat16 else torch.float32
    # TF32 for the products that stay in float32, those of the heads
    torch.set_float32_matmul_precision("high" if use_bfloat16 else "highest")
    return torch.device(device)


def computes_bfloat16(device):
    """Whether a device multiplies in bfloat16 itself; a CPU that does not is slower with it."""
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return device == "cuda"
