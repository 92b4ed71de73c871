"""Adam and Muon, and how their learning rates fall."""

import math

import tools               # before torch: it says how torch's threads wait
import torch


def make_adam(params, lr):
    """Adam with the paper's betas (appendix C)."""
    return torch.optim.Adam(params, lr=lr, betas=(0.9, 0.95), fused=True)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices (Jordan et al. 2024).

    torch.optim.Muon in float32 instead of bfloat16, three times as fast on a CPU.
    """

    def __init__(self, params, lr, weight_decay=0.0, momentum=0.95):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}                            # matrices of one shape are turned together
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for (m, n), params in shapes.items():
                averages = [self.state[p].setdefault("average", torch.zeros_like(p))
                            for p in params]
                grads = [p.grad for p in params]
                torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
                updates = orthogonalise(torch.stack(grads).lerp_(torch.stack(averages),
                                                                 group["momentum"]))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, updates.unbind(),
                                    alpha=-group["lr"] * max(1, m / n) ** 0.5)


def orthogonalise(g, steps=5):
    """U S V^T -> about U V^T, by Newton and Schulz's iteration: the singular values of g come near
    1, between 0.7 and 1.2. (..., m, n) -> (..., m, n)"""
    if g.shape[-2] > g.shape[-1]:
        return orthogonalise(g.mT, steps).mT
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = 3.4445 * x + (-4.775 * s + 2.0315 * s @ s) @ x
    return x


def make_muon_and_adam(model, muon_lr, lr, weight_decay=0.0):
    """Muon for the matrices of the blocks, Adam for embeddings, biases and layer norms."""
    # differs from the paper: Muon for the blocks' matrices before PPO; it takes half the steps
    matrices, others = [], []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and ".h." in name else others).append(p)
    return Muon(matrices, muon_lr, weight_decay), make_adam(others, lr)


def set_lr(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(done):
    """A learning rate's factor when a share `done` of the steps is behind us: 1 to a tenth
    (appendix C.1)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
