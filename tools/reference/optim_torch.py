"""lamb.safetensors, lars.safetensors and sgd.safetensors: six steps each, in PyTorch.

LAMB from You et al. 2020 (Alg. 2, with the bias correction of its code), LARS from You, Gitman and
Ginsburg 2017 with decay inside the trusted gradient, both without decay and trust ratio for vectors.
Each is checked against the same equations in f64; SGD is torch.optim.SGD.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common import agree, numpy
from optim import LR, SHAPES


class Lamb:
    SLOTS = ["m", "v"]

    def __init__(self, p: Tensor):
        self.m, self.v, self.t = torch.zeros_like(p), torch.zeros_like(p), 0

    def step(self, p: Tensor, g: Tensor, lr: float) -> Tensor:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        r = (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt() + 1e-6)
        ratio = 1.0
        if p.ndim > 1:
            r = r + 1e-3 * p
            if p.norm() > 0 and r.norm() > 0:
                ratio = p.norm() / r.norm()
        return p - lr * ratio * r


class Lars:
    SLOTS = ["mu"]

    def __init__(self, p: Tensor):
        self.mu = torch.zeros_like(p)

    def step(self, p: Tensor, g: Tensor, lr: float) -> Tensor:
        if p.ndim > 1:
            g = g + 1.5e-2 * p
            if p.norm() > 0 and g.norm() > 0:
                g = 0.001 * p.norm() / g.norm() * g
        self.mu = 0.9 * self.mu + g
        return p - lr * self.mu


class Sgd:
    SLOTS = ["buf"]

    def __init__(self, p: Tensor):
        self.p = torch.nn.Parameter(p.clone())
        self.optimizer = torch.optim.SGD([self.p], lr=0.0, momentum=0.9, weight_decay=1e-2)

    @property
    def buf(self) -> Tensor:
        return self.optimizer.state[self.p]["momentum_buffer"]

    def step(self, p: Tensor, g: Tensor, lr: float) -> Tensor:
        self.p.grad = g
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        return self.p.detach().clone()


def six_steps(rule: type) -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(8)
    out = {"lr": np.array(LR, np.float32)}
    for i, shape in enumerate(SHAPES):
        # The third parameter starts at zero, so that a ratio of norms has nothing to divide.
        p = torch.randn(shape, generator=g) * (0.0 if i == 2 else 1.0)
        exact = p.double()
        state, wanted = rule(p), rule(exact)
        out[f"init.{i}"] = numpy(p).copy()
        for t, lr in enumerate(LR):
            scale = 0.0 if t == len(LR) - 1 else [1.0, 1e-4, 1e-2, 30.0][(i + t) % 4]
            grad = scale * torch.randn(shape, generator=g)
            lr = float(np.float32(lr))
            p, exact = state.step(p, grad, lr), wanted.step(exact, grad.double(), lr)
            out[f"grad.{i}.{t}"] = numpy(grad).copy()
            out[f"param.{i}.{t}"] = numpy(p).copy()
            if t > 0:
                agree(f"{rule.__name__}.param.{i}.{t}", p, exact, 2e-6)
        out |= {f"{slot}.{i}": numpy(getattr(state, slot)).copy() for slot in rule.SLOTS}
    return out


def build_lamb() -> dict[str, np.ndarray]:
    return six_steps(Lamb)


def build_lars() -> dict[str, np.ndarray]:
    return six_steps(Lars)


def build_sgd() -> dict[str, np.ndarray]:
    return six_steps(Sgd)
