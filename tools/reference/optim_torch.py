"""lamb.safetensors, lars.safetensors, sgd.safetensors and clip.safetensors: six steps each, in PyTorch.

LAMB from You et al. 2020 (Alg. 2, with the bias correction of its code), LARS from You, Gitman and
Ginsburg 2017 with decay inside the trusted gradient, both without decay and trust ratio for vectors.
Each is checked against the same equations in f64; SGD and AdamW are torch.optim's, and clipping is
torch.nn.utils.clip_grad_norm_.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common import agree, numpy
from optim import LR, SHAPES


class Lamb:
    SLOTS = ["m", "v"]

    def __init__(self, p: Tensor, decay: float = 1e-3):
        self.m, self.v, self.t, self.decay = torch.zeros_like(p), torch.zeros_like(p), 0, decay

    def step(self, p: Tensor, g: Tensor, lr: float) -> Tensor:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        r = (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt() + 1e-6)
        ratio = 1.0
        if p.ndim > 1:
            r = r + self.decay * p
            if p.norm() > 0 and r.norm() > 0:
                ratio = p.norm() / r.norm()
        return p - lr * ratio * r


class Lars:
    SLOTS = ["mu"]

    def __init__(self, p: Tensor, decay: float = 1.5e-2, trust: float = 0.001):
        self.mu, self.decay, self.trust = torch.zeros_like(p), decay, trust

    def step(self, p: Tensor, g: Tensor, lr: float) -> Tensor:
        if p.ndim > 1:
            g = g + self.decay * p
            if p.norm() > 0 and g.norm() > 0:
                g = self.trust * p.norm() / g.norm() * g
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


class AdamW:
    SLOTS = ["m", "v"]

    def __init__(self, p: Tensor, decay: float = 0.1):
        self.p = torch.nn.Parameter(p.clone())
        self.optimizer = torch.optim.AdamW([self.p], lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)

    @property
    def m(self) -> Tensor:
        return self.optimizer.state[self.p]["exp_avg"]

    @property
    def v(self) -> Tensor:
        return self.optimizer.state[self.p]["exp_avg_sq"]

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


# The second parameter's gradient alone, and then all together: sometimes above and sometimes below.
GROUP, GROUP_NORM, NORM = 1, 0.5, 2.0


def clipped(grads: list[Tensor]) -> list[Tensor]:
    """Clipped in the group, then all together."""
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(parameters, grads):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_([parameters[GROUP]], GROUP_NORM)
    torch.nn.utils.clip_grad_norm_(parameters, NORM)
    return [p.grad for p in parameters]


def build_clip() -> dict[str, np.ndarray]:
    """Each rule on the same gradients, which are clipped. Stored are those before."""
    g = torch.Generator().manual_seed(12)
    init = [torch.randn(shape, generator=g) for shape in SHAPES]
    grads = []
    for t in range(len(LR)):
        scales = [[1.0, 0.1, 1e-3, 0.5][(i + t) % 4] for i in range(len(SHAPES))]
        grads.append([scale * torch.randn(shape, generator=g) for scale, shape in zip(scales, SHAPES)])
    norms = [torch.cat([x.flatten() for x in step]).norm() for step in grads]
    assert min(norms) < NORM < max(norms), f"clips all or nothing: {norms}"
    out = {}
    for label, rule in [("adamw", AdamW), ("lamb", Lamb), ("lars", Lars), ("sgd", Sgd)]:
        p, exact = list(init), [x.double() for x in init]
        state, wanted = [rule(x) for x in p], [rule(x) for x in exact]
        out[f"{label}.lr"] = np.array(LR, np.float32)
        for i in range(len(SHAPES)):
            out[f"{label}.init.{i}"] = numpy(p[i]).copy()
        for t, lr in enumerate(LR):
            lr = float(np.float32(lr))
            ours, theirs = clipped(grads[t]), clipped([x.double() for x in grads[t]])
            for i in range(len(SHAPES)):
                p[i], exact[i] = state[i].step(p[i], ours[i], lr), wanted[i].step(exact[i], theirs[i], lr)
                agree(f"clip.{label}.param.{i}.{t}", p[i], exact[i], 2e-6)
                out[f"{label}.grad.{i}.{t}"] = numpy(grads[t][i]).copy()
                out[f"{label}.param.{i}.{t}"] = numpy(p[i]).copy()
        for i in range(len(SHAPES)):
            out |= {f"{label}.{slot}.{i}": numpy(getattr(state[i], slot)).copy() for slot in rule.SLOTS}
    return out
