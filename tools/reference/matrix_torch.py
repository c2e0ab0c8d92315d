"""matrix.safetensors: where methods, backbones and optimizers meet, three steps each, in PyTorch.

SimCLR, BYOL and SwAV on a ResNet with the heads of their papers, by LARS as their recipes have it (no
decay and no trust ratio for biases and norms); MoCo v3 on a ResNet, a ViT-BN and a ConvStem ViT by AdamW
and by LAMB. Losses are `methods_torch`'s, backbones `backbones_torch`'s, rules `optim_torch`'s.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

import backbones_torch
import methods_torch
import moco_torch
from common import agree, comparable, numpy, relative_norm, unseen
from methods_torch import FREEZE, PROTOTYPES, head
from optim_torch import AdamW, Lamb, Lars
from training import pictures, views

STEPS, BATCH, HIDDEN, OUT = 3, 8, 32, 16
MOMENTUM = [0.9, 0.92, 0.95]
# The momentum encoder starts as the base encoder times this: near it, and not it.
SLOW_START = 0.9
PATCHES = "base_encoder.patch_embed."


@dataclass(frozen=True)
class Rule:
    """An optimizer with numbers at which three steps show each of its terms: at a recipe's coefficient of
    LARS and at its decays they would move parameters by little more than f32 tells."""

    make: type
    lr: list[float]
    numbers: dict
    # Gradients of the patch projection are clipped to the first, then all to the second.
    clip: tuple[float, float] | None = None


LARS = Rule(Lars, [0.02, 0.04, 0.06], dict(decay=0.05, trust=0.1))
ADAMW = Rule(AdamW, [1e-3, 2e-3, 3e-3], dict(decay=0.1))
LAMB = Rule(Lamb, [5e-3, 1e-2, 2e-2], dict(decay=0.1))


@dataclass(frozen=True)
class Case(methods_torch.Case):
    backbone: type = backbones_torch.ResNet
    options: dict = field(default_factory=lambda: dict(block=Bottleneck, stages=[1, 1], width=8, stem="7x7"))
    projector_layers: int = 2
    rules: dict[str, Rule] = field(default_factory=lambda: {"lars": LARS})


ADAPTIVE = {"adamw": ADAMW, "lamb": LAMB}
CLIPPED = {name: Rule(rule.make, rule.lr, rule.numbers, clip=(0.05, 0.5)) for name, rule in ADAPTIVE.items()}
CASES = {
    # Chen et al. 2020: two layers, BN after both; Eq. 1 over both crops, temperature .1.
    "simclr_resnet": Case("simclr", projector="all", predictor=None, crops="together", temperature=0.1),
    # Grill et al. 2020: two layers each, BN in the hidden one.
    "byol_resnet": Case("byol", projector="hidden", predictor="hidden"),
    # Caron et al. 2020: two layers, BN in the hidden one; prototypes held in the first step.
    "swav_resnet": Case("swav", projector="hidden", predictor=None, crops="together", temperature=0.1),
    "moco_v3_resnet": Case("moco_v3", predictor="hidden", rules=ADAPTIVE),
    "moco_v3_vit_bn": Case("moco_v3", backbone=backbones_torch.Vit, options=dict(mlp_norm="batch"), rules=ADAPTIVE),
    "moco_v3_conv_stem": Case(
        "moco_v3", backbone=backbones_torch.Vit, options=dict(patch_projection="conv_stem"), rules=CLIPPED
    ),
}


class Model(methods_torch.Model):
    """A method's losses on another backbone."""

    def __init__(self, case: Case):
        nn.Module.__init__(self)
        self.case = case
        base = case.backbone(**case.options)
        projector = head([base.features] + [HIDDEN] * (case.projector_layers - 1) + [OUT], case.projector)
        setattr(base, "fc" if case.backbone is backbones_torch.ResNet else "head", projector)
        self.base_encoder = base
        self.predictor = nn.Identity()
        if case.predictor is not None:
            self.predictor = head([OUT, HIDDEN, OUT], case.predictor)
        if case.has_momentum_encoder:
            self.momentum_encoder = copy.deepcopy(base).requires_grad_(False)
        if case.method == "swav":
            self.prototypes = nn.Linear(OUT, PROTOTYPES, bias=False)


def initialise(model: Model, generator: torch.Generator) -> None:
    """Draws everything, with noise where zeros and ones would hide mistakes."""
    noise = lambda p, std: torch.randn(p.shape, generator=generator) * std
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("momentum_encoder") or name.endswith("pos_embed"):
                continue
            if p.ndim > 1 and not name.endswith("cls_token"):
                bound = (3 / p[0].numel()) ** 0.5
                p.copy_(torch.empty_like(p).uniform_(-bound, bound, generator=generator))
            else:
                p.copy_(1 + noise(p, 0.1) if name.endswith("weight") else noise(p, 0.02))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(noise(buffer, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))
        if model.case.has_momentum_encoder:
            base = dict(model.base_encoder.named_parameters())
            for name, slow in model.momentum_encoder.named_parameters():
                slow.copy_(base[name] * (SLOW_START if base[name].requires_grad else 1))


def clip(grads: dict[str, Tensor], norms: tuple[float, float]) -> dict[str, Tensor]:
    """Those of the patch projection together, then all together."""
    parameters = {name: nn.Parameter(torch.zeros_like(g)) for name, g in grads.items()}
    for name, p in parameters.items():
        p.grad = grads[name].clone()
    group = [p for name, p in parameters.items() if name.startswith(PATCHES)]
    for members, most in [(group, norms[0]), (parameters.values(), norms[1])]:
        norm = torch.nn.utils.clip_grad_norm_(members, most)
        assert norm > 1.5 * most, f"a norm of {norm} is not clipped at {most}"
    return {name: p.grad for name, p in parameters.items()}


def train(case: Case, rule: Rule, init: dict[str, Tensor], x1: Tensor, x2: Tensor, dtype: torch.dtype):
    """Losses, first gradients, final state."""
    model = Model(case)
    model.load_state_dict(init, strict=False)
    model.to(dtype).train()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    rules = {k: rule.make(p.detach(), **rule.numbers) for k, p in trained.items()}
    losses, first = [], {}
    for t in range(STEPS):
        loss = model.loss(x1[t].to(dtype), x2[t].to(dtype), MOMENTUM[t])
        grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values()))))
        if t == 0:
            first = {k: g.clone() for k, g in grads.items()}
        if rule.clip:
            grads = clip(grads, rule.clip)
        with torch.no_grad():
            for name, p in trained.items():
                if name != "prototypes.weight" or t >= FREEZE:
                    p.copy_(rules[name].step(p.detach(), grads[name], rule.lr[t]))
        losses.append(loss.item())
    return losses, first, moco_torch.state_of(model)


def compare(label: str, ours, exact, init: dict[str, Tensor]) -> None:
    """f32 with f64; and that each parameter has moved by far more than a test may be off."""
    assert np.allclose(ours[0], exact[0], rtol=3e-6), f"{label}: {ours[0]} against {exact[0]} in f64"
    worst = {"gradient": (0.0, ""), "final": (0.0, "")}
    least = (1.0, "")
    for what, found, wanted in [("gradient", ours[1], exact[1]), ("final", ours[2], exact[2])]:
        assert set(found) == set(wanted)
        for name, value in found.items():
            pair = comparable(name, value), comparable(name, wanted[name])
            # The projector's first running mean sees the noise of the final norm's bias.
            noisy = name.endswith("encoder.head.1.running_mean")
            error = agree(f"{label}: {what} {name}", *pair, 5e-3 if noisy else 2e-5)
            if not noisy:
                worst[what] = max(worst[what], (error, name))
    for name, gradient in ours[1].items():
        noise = np.abs(unseen(name, gradient)).max(initial=0.0)
        assert noise <= 1e-6, f"{label}: a gradient of {name} that is zero in theory is {noise:.1e}"
        if len(comparable(name, gradient)) == 0:
            continue
        moved = relative_norm(init[name], ours[2][name])
        least = min(least, (moved, name))
    assert least[0] >= 2e-3, f"{label}: {least[1]} moves by {least[0]:.1e}: nothing to compare"
    told = "; ".join(f"{k} {v:.1e} ({n})" for k, (v, n) in worst.items())
    print(f"{label}: f32 against f64 {told}; least moved {least[0]:.1e} ({least[1]}); {[round(x, 4) for x in ours[0]]}")


def is_stored(name: str) -> bool:
    """Of the start: all that the momentum encoder's cannot be computed from."""
    return not name.startswith("momentum_encoder") or "running_" in name


def is_told(name: str) -> bool:
    """Of the end: all but most of the momentum encoder's parameters, which follow."""
    parts = ("running_", "conv1.", "bn1.", "norm2.", ".fc.", ".head.")
    return not name.startswith("momentum_encoder") or any(part in name for part in parts)


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(13)
    x1 = torch.stack([pictures(BATCH, g) for _ in range(STEPS)])
    x2 = torch.stack([views(x, g) for x in x1])
    out = {"m": np.array(MOMENTUM, np.float32)}
    for t in range(STEPS):
        out |= {f"x1.{t}": numpy(x1[t]), f"x2.{t}": numpy(x2[t])}
    for label, case in CASES.items():
        model = Model(case)
        initialise(model, g)
        init = moco_torch.state_of(model)
        out |= {f"{label}.init.{k}": numpy(v) for k, v in init.items() if is_stored(k)}
        for name, rule in case.rules.items():
            run = train(case, rule, init, x1, x2, torch.float32)
            compare(f"{label} {name}", run, train(case, rule, init, x1, x2, torch.float64), init)
            losses, grads, final = run
            # The same of each rule: nothing has been updated yet.
            out |= {f"{label}.grad.{k}": numpy(v) for k, v in grads.items()}
            out[f"{label}.{name}.loss"] = np.array(losses, np.float32)
            out[f"{label}.{name}.lr"] = np.array(rule.lr, np.float32)
            out |= {f"{label}.{name}.final.{k}": numpy(v) for k, v in final.items() if is_told(k)}
    return out
