"""methods.safetensors: SimCLR, BYOL, SwAV, SimSiam and variants of MoCo v3, three steps each, in PyTorch.

Written from the equations of the papers: Chen et al. 2020 (SimCLR, Eq. 1), Grill et al. 2020 (BYOL,
Sec. 3), Caron et al. 2020 (SwAV, Sec. 3.1 and the pseudo-code of its appendix), Chen and He 2021
(SimSiam, Alg. 1), Chen, Xie, He 2021 (MoCo v3, Alg. 1 and appendix A). One statement per equation; loops where a matrix form would hide
what is meant. Plain SGD, so that no rounding noise is blown up to a full-size step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import moco_torch
from common import agree, numpy
from training import pictures, views

STEPS, BATCH = 3, 8
LR = [0.003, 0.006, 0.01]
MOMENTUM = [0.9, 0.92, 0.95]
PROTOTYPES, FREEZE = 10, 1


@dataclass(frozen=True)
class Case:
    method: str
    projector: str = "all"  # layers that have a BN: all, hidden, none
    predictor: str | None = "all"
    crops: str = "apart"
    temperature: float = 0.2
    loss_scale: str = "two_tau"
    negatives: str = "both_views"
    sinkhorn_iterations: int = 3
    queue: int = 0

    @property
    def has_momentum_encoder(self) -> bool:
        return self.method in ("moco_v3", "byol")


CASES = {
    "moco_v3_without_predictor": Case("moco_v3", predictor=None),
    "moco_v3_without_norm": Case("moco_v3", projector="none", predictor="none", loss_scale="one"),
    "moco_v3_crops_together": Case("moco_v3", crops="together"),
    "simclr": Case("simclr", predictor=None, crops="together", temperature=0.2),
    "simclr_other_view": Case("simclr", predictor=None, temperature=0.3, negatives="other_view"),
    "byol": Case("byol", projector="hidden", predictor="hidden"),
    "swav": Case("swav", projector="none", predictor=None, crops="together", temperature=0.2),
    "swav_queue": Case("swav", projector="none", predictor=None, temperature=0.1, queue=12),
    "swav_softmax": Case("swav", projector="none", predictor=None, temperature=0.1, sinkhorn_iterations=0),
    "simsiam": Case("simsiam", predictor="hidden"),
}


def head(sizes: list[int], norm: str) -> nn.Sequential:
    """Linear, then BN where `norm` has it, ReLU between layers. Modules keep the places they have
    with every BN there, as names show: linear 3 i, BN 3 i + 1. A hidden linear without BN has a bias."""
    modules: dict[str, nn.Module] = {}
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
        last = i == len(sizes) - 2
        normed = norm == "all" or (norm == "hidden" and not last)
        modules[str(3 * i)] = nn.Linear(fan_in, fan_out, bias=not (normed or last))
        if normed:
            modules[str(3 * i + 1)] = nn.BatchNorm1d(fan_out, affine=not last)
        if not last:
            modules[str(3 * i + 2)] = nn.ReLU()
    sequence = nn.Sequential()
    for name, module in modules.items():
        sequence.add_module(name, module)
    return sequence


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """[N, K] -> codes [N, K], in the paper's own orientation: Q is [K, N]."""
    Q = torch.exp(scores / epsilon).T
    if iterations == 0:
        return (Q / Q.sum(dim=0)).T
    K, N = Q.shape
    Q = Q / Q.sum()
    for _ in range(iterations):
        Q = Q / Q.sum(dim=1, keepdim=True) / K
        Q = Q / Q.sum(dim=0, keepdim=True) / N
    return (Q * N).T


class Model(nn.Module):
    def __init__(self, case: Case):
        super().__init__()
        config = moco_torch.Config(blocks=1)
        self.case = case
        self.base_encoder = moco_torch.Vit(config)
        self.base_encoder.head = head([config.dim, config.hidden, config.hidden, config.out], case.projector)
        self.predictor = nn.Identity()
        if case.predictor is not None:
            self.predictor = head([config.out, config.hidden, config.out], case.predictor)
        if case.has_momentum_encoder:
            self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)
        self.base_encoder.patch_embed.requires_grad_(False)
        if case.method == "swav":
            self.prototypes = nn.Linear(config.out, PROTOTYPES, bias=False)
            if case.queue:
                self.register_buffer("swav_queue", torch.zeros(2, case.queue, config.out))

    def both(self, module: nn.Module, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        if self.case.crops == "apart":
            return module(x1), module(x2)
        return module(torch.cat([x1, x2])).split(len(x1))

    @torch.no_grad()
    def update_momentum_encoder(self, m: float) -> None:
        for slow, fast in zip(self.momentum_encoder.parameters(), self.base_encoder.parameters(), strict=True):
            slow.copy_(m * slow + (1 - m) * fast)

    def loss(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        return getattr(self, self.case.method)(x1, x2, m)

    def targets(self, x1: Tensor, x2: Tensor, m: float) -> tuple[Tensor, Tensor]:
        self.update_momentum_encoder(m)
        with torch.no_grad():
            return self.both(self.momentum_encoder, x1, x2)

    def moco_v3(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        q1, q2 = self.both(self.predictor, *self.both(self.base_encoder, x1, x2))
        k1, k2 = self.targets(x1, x2, m)
        tau = self.case.temperature
        loss = moco_torch.contrastive_loss(q1, k2, tau) + moco_torch.contrastive_loss(q2, k1, tau)
        return loss if self.case.loss_scale == "two_tau" else loss / (2 * tau)

    def simclr(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        """The mean over all 2 N crops of -log(exp(s_ij / tau) / sum over candidates)."""
        z1, z2 = (F.normalize(z, dim=1) for z in self.both(self.base_encoder, x1, x2))
        N = len(z1)
        z = torch.cat([z1, z2])
        losses = []
        for i in range(2 * N):
            positive = (i + N) % (2 * N)
            if self.case.negatives == "both_views":
                candidates = [j for j in range(2 * N) if j != i]
            else:
                candidates = list(range(N, 2 * N) if i < N else range(N))
            similarity = z @ z[i] / self.case.temperature
            losses.append(torch.logsumexp(similarity[candidates], 0) - similarity[positive])
        return torch.stack(losses).mean()

    def byol(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        """The squared distance of normalised prediction and target, of both directions."""
        q1, q2 = self.both(self.predictor, *self.both(self.base_encoder, x1, x2))
        k1, k2 = self.targets(x1, x2, m)
        distance = lambda q, k: (F.normalize(q, dim=1) - F.normalize(k, dim=1)).square().sum(dim=1).mean()
        return distance(q1, k2) + distance(q2, k1)

    def simsiam(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        """Algorithm 1 of Chen and He 2021."""
        z1, z2 = self.both(self.base_encoder, x1, x2)
        p1, p2 = self.both(self.predictor, z1, z2)
        D = lambda p, z: -F.cosine_similarity(p, z.detach(), dim=1).mean()
        return D(p1, z2) / 2 + D(p2, z1) / 2

    def swav(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        z = [F.normalize(z, dim=1) for z in self.both(self.base_encoder, x1, x2)]
        scores = [self.prototypes(z) for z in z]
        codes = []
        for view in range(2):
            with torch.no_grad():
                rows = scores[view].detach()
                if self.case.queue:
                    queue = self.swav_queue[view].clone()
                    if bool((queue[-1] != 0).any()):  # full
                        rows = torch.cat([self.prototypes(queue), rows])
                    self.swav_queue[view] = torch.cat([z[view].detach(), queue])[: len(queue)]
                codes.append(sinkhorn(rows, 0.05, self.case.sinkhorn_iterations)[-len(x1) :])
        log_p = [F.log_softmax(s / self.case.temperature, dim=1) for s in scores]
        direction = lambda i, j: -(codes[j] * log_p[i]).sum(dim=1).mean()
        return (direction(0, 1) + direction(1, 0)) / 2


def initialise(model: Model, backbone: dict[str, Tensor], generator: torch.Generator) -> None:
    """The given backbone; heads drawn, with noise where zeros and ones would hide mistakes; a momentum
    encoder near the base encoder."""
    noise = lambda p, std: torch.randn(p.shape, generator=generator) * std
    with torch.no_grad():
        model.base_encoder.load_state_dict(backbone, strict=False)
        parts = [model.base_encoder.head, model.predictor] + ([model.prototypes] if model.case.method == "swav" else [])
        for module in (m for part in parts for m in part.modules()):
            if isinstance(module, nn.Linear):
                bound = module.weight.shape[1] ** -0.5
                module.weight.copy_(torch.empty_like(module.weight).uniform_(-bound, bound, generator=generator))
            if isinstance(module, nn.BatchNorm1d) and module.weight is not None:
                module.weight.copy_(1 + noise(module.weight, 0.1))
            if getattr(module, "bias", None) is not None:
                module.bias.copy_(noise(module.bias, 0.02))
        if model.case.has_momentum_encoder:
            base = dict(model.base_encoder.named_parameters())
            for name, slow in model.momentum_encoder.named_parameters():
                frozen = name == "pos_embed" or name.startswith("patch_embed")
                slow.copy_(base[name] + (0 if frozen else noise(slow, 0.1 * float(base[name].std()))))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(noise(buffer, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))


def train(case: Case, init: dict[str, Tensor], x1: Tensor, x2: Tensor, dtype: torch.dtype):
    """Losses, first gradients, final state."""
    model = Model(case)
    model.load_state_dict(init, strict=False)
    model.to(dtype).train()
    losses, first = [], {}
    for t in range(STEPS):
        loss = model.loss(x1[t].to(dtype), x2[t].to(dtype), MOMENTUM[t])
        trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values()))))
        if t == 0:
            first = {k: g.clone() for k, g in grads.items()}
        with torch.no_grad():
            for name, p in trained.items():
                if name != "prototypes.weight" or t >= FREEZE:
                    p -= LR[t] * grads[name]
        losses.append(loss.item())
    return losses, first, moco_torch.state_of(model)


def is_shared(name: str) -> bool:
    """The start of the base encoder's backbone, which all cases have."""
    return name.startswith("base_encoder.") and ".head." not in name


def is_told(name: str) -> bool:
    """What of a final state is stored: all that methods treat differently, and one layer of the rest."""
    backbone = "_encoder." in name and ".head." not in name
    return not backbone or "attn.proj" in name


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(7)
    donor = moco_torch.MocoV3(moco_torch.Config(blocks=1))
    moco_torch.initialise(donor, g)
    backbone = {k: v for k, v in moco_torch.state_of(donor.base_encoder).items() if not k.startswith("head.")}
    x1 = torch.stack([pictures(BATCH, g) for _ in range(STEPS)])
    x2 = torch.stack([views(x, g) for x in x1])
    out = {"lr": np.array(LR, np.float32), "m": np.array(MOMENTUM, np.float32)}
    for t in range(STEPS):
        out |= {f"x1.{t}": numpy(x1[t]), f"x2.{t}": numpy(x2[t])}
    out |= {f"init.base_encoder.{k}": numpy(v) for k, v in backbone.items()}
    for label, case in CASES.items():
        model = Model(case)
        initialise(model, backbone, g)
        init = moco_torch.state_of(model)
        losses, grads, final = train(case, init, x1, x2, torch.float32)
        exact = train(case, init, x1, x2, torch.float64)
        assert np.allclose(losses, exact[0], rtol=5e-6), f"{label}: {losses} against {exact[0]} in f64"
        worst = 0.0
        for what, ours, wanted in [("gradient", grads, exact[1]), ("final", final, exact[2])]:
            assert set(ours) == set(wanted)
            for name, value in ours.items():
                if float(wanted[name].norm()) > 1e-6:
                    worst = max(worst, agree(f"{label}: {what} {name}", value, wanted[name], 2e-5))
        print(f"{label}: f32 against f64 at most {worst:.1e}; losses {[round(x, 4) for x in losses]}")
        out[f"{label}.loss"] = np.array(losses, np.float32)
        for prefix, tensors, kept in [
            ("init", init, lambda k: not is_shared(k)),
            ("grad", grads, lambda k: True),
            ("final", final, is_told),
        ]:
            out |= {f"{label}.{prefix}.{k}": numpy(v) for k, v in tensors.items() if kept(k)}
    return out
