"""backbones.safetensors and resnet50.safetensors: every kind of backbone, in PyTorch and torchvision.

ResNets are made of torchvision's own residual blocks; the ViT's variants are written from the paper
(Sec. 4.2, 6.2, 6.3) and from Xiao et al. 2021 (the convolutional stem), one statement per equation.
Each case is MoCo v3 on a small backbone: the loss, all gradients of the first step, the state after three
steps, and the features of the start in evaluation form.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import moco_torch
from common import agree, numpy
from methods_torch import head
from optim_torch import Lars
from training import pictures, views

STEPS, BATCH, IMAGE, HIDDEN, OUT, TAU = 3, 8, 16, 32, 16, 0.2
MOMENTUM = [0.9, 0.92, 0.95]
# The momentum encoder starts as the base encoder times this: near it, and not it.
SLOW_START = 0.9
# Of the whole networks: see `margin`.
MARGIN = 3.0


class ResNet(nn.Module):
    """torchvision's names and blocks, at any width, depth and stem."""

    def __init__(self, block: type, stages: list[int], width: int, stem: str):
        super().__init__()
        kernel, stride = {"7x7": (7, 2), "3x3": (3, 1)}[stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "7x7" else nn.Identity()
        inputs, self.stages = width, []
        for i, count in enumerate(stages):
            inner, layers = width * 2**i, []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                shortcut = None
                if stride != 1 or inputs != inner * block.expansion:
                    shortcut = nn.Sequential(
                        nn.Conv2d(inputs, inner * block.expansion, 1, stride, bias=False),
                        nn.BatchNorm2d(inner * block.expansion),
                    )
                layers.append(block(inputs, inner, stride, shortcut))
                inputs = inner * block.expansion
            self.stages.append(f"layer{i + 1}")
            setattr(self, self.stages[-1], nn.Sequential(*layers))
        self.features = inputs
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean(dim=(2, 3)))


class TokenBatchNorm(nn.BatchNorm1d):
    """BN of [B, T, D]: statistics over batch and tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


class WeightNormConv(nn.Module):
    """A convolution whose weight is g v / |v|, each output channel by itself."""

    def __init__(self, dim: int, patch: int):
        super().__init__()
        self.stride = patch
        self.weight_g = nn.Parameter(torch.ones(dim, 1, 1, 1))
        self.weight_v = nn.Parameter(torch.zeros(dim, 3, patch, patch))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return F.conv2d(x, self.weight_g * self.weight_v / norm, self.bias, stride=self.stride)


class Patches(nn.Module):
    """Pictures to tokens, by one of the paper's projections or by the convolutional stem."""

    def __init__(self, kind: str, dim: int, patch: int):
        super().__init__()
        self.norm = nn.Identity()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)
        if kind == "weight_norm":
            self.proj = WeightNormConv(dim, patch)
        elif kind == "batch_norm":
            self.norm = TokenBatchNorm(dim)
        elif kind == "conv_stem":
            layers: list[nn.Module] = []
            inputs, count = 3, patch.bit_length() - 1
            for i in range(count):
                outputs = dim // 2 ** (count - 1 - i)
                layers += [nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            self.proj = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class Vit(nn.Module):
    def __init__(self, patch_projection="frozen", position="sin_cos", output="class", mlp_norm="layer", patch=4, blocks=1):
        super().__init__()
        config = moco_torch.Config(blocks=blocks, patch=patch)
        dim, grid = config.dim, IMAGE // patch
        self.output, self.features = output, dim
        if output == "class":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if position != "none":
            table = moco_torch.position_table(grid, dim).float()
            table = table if output == "class" else table[1:]
            self.pos_embed = nn.Parameter(table[None], requires_grad=position == "learned")
        self.patch_embed = Patches(patch_projection, dim, patch)
        self.patch_embed.requires_grad_(patch_projection != "frozen")
        self.blocks = nn.ModuleList(moco_torch.Block(config) for _ in range(blocks))
        if mlp_norm == "batch":
            for block in self.blocks:
                block.norm2 = TokenBatchNorm(dim)
        if output != "pool":
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        if self.output == "class":
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if hasattr(self, "pos_embed"):
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = {"class": lambda: self.norm(x)[:, 0], "norm_pool": lambda: self.norm(x).mean(1), "pool": lambda: x.mean(1)}[
            self.output
        ]()
        return self.head(x)


@dataclass(frozen=True)
class Case:
    backbone: type
    options: dict
    lars: bool = False
    crops: str = "apart"
    lr: list[float] = field(default_factory=lambda: [0.003, 0.006, 0.01])


CASES = {
    "resnet_bottleneck": Case(
        ResNet, dict(block=Bottleneck, stages=[1, 2], width=8, stem="7x7"), lars=True, lr=[0.05, 0.1, 0.2]
    ),
    "resnet_basic": Case(ResNet, dict(block=BasicBlock, stages=[1, 2], width=8, stem="3x3")),
    "resnet_crops_together": Case(ResNet, dict(block=BasicBlock, stages=[1], width=8, stem="7x7"), crops="together"),
    "vit_bn": Case(Vit, dict(mlp_norm="batch", blocks=2)),
    "vit_bn_pool": Case(Vit, dict(mlp_norm="batch", output="pool", position="none")),
    "patch_learned": Case(Vit, dict(patch_projection="learned", position="learned")),
    "patch_bn": Case(Vit, dict(patch_projection="batch_norm")),
    "patch_wn": Case(Vit, dict(patch_projection="weight_norm")),
    "conv_stem": Case(Vit, dict(patch_projection="conv_stem")),
    "norm_pool": Case(Vit, dict(output="norm_pool")),
    "pool": Case(Vit, dict(output="pool", position="learned", patch=2)),
}


class Model(nn.Module):
    def __init__(self, case: Case):
        super().__init__()
        self.case = case
        base = case.backbone(**case.options)
        if case.backbone is ResNet:
            base.fc, self.head_name = head([base.features, HIDDEN, OUT], "all"), "fc"
            self.predictor = head([OUT, HIDDEN, OUT], "hidden")
        else:
            base.head, self.head_name = head([base.features, HIDDEN, OUT], "all"), "head"
            self.predictor = head([OUT, HIDDEN, OUT], "all")
        self.base_encoder = base
        self.momentum_encoder = copy.deepcopy(base).requires_grad_(False)

    def both(self, module: nn.Module, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        if self.case.crops == "apart":
            return module(x1), module(x2)
        return module(torch.cat([x1, x2])).split(len(x1))

    def loss(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        q1, q2 = self.both(self.predictor, *self.both(self.base_encoder, x1, x2))
        with torch.no_grad():
            pairs = zip(self.momentum_encoder.parameters(), self.base_encoder.parameters(), strict=True)
            for slow, fast in pairs:
                slow.copy_(m * slow + (1 - m) * fast)
            k1, k2 = self.both(self.momentum_encoder, x1, x2)
        return moco_torch.contrastive_loss(q1, k2, TAU) + moco_torch.contrastive_loss(q2, k1, TAU)

    def features(self, x: Tensor) -> Tensor:
        """Of the backbone in evaluation form."""
        backbone = copy.deepcopy(self.base_encoder).eval()
        setattr(backbone, self.head_name, nn.Identity())
        with torch.no_grad():
            return backbone(x)


def initialise(model: Model, generator: torch.Generator) -> None:
    """Draws everything, with noise where zeros and ones would hide mistakes; but the last BN of a basic
    ResNet starts with gain and bias 0, as recipes have it: then ReLUs stand at 0 exactly."""
    noise = lambda p, std: torch.randn(p.shape, generator=generator) * std
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("momentum_encoder") or not p.requires_grad and name.endswith("pos_embed"):
                continue
            if p.ndim > 1 and not name.endswith(("weight_g", "cls_token", "pos_embed")):
                bound = (3 / p[0].numel()) ** 0.5
                p.copy_(torch.empty_like(p).uniform_(-bound, bound, generator=generator))
            elif name.endswith(("weight", "weight_g")):
                p.copy_(1 + noise(p, 0.1))
            else:
                p.copy_(noise(p, 0.1 if name.endswith("pos_embed") else 0.02))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(noise(buffer, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))
        if model.case.options.get("stem") == "3x3":
            last = model.base_encoder.layer2[-1].bn2
            last.weight.zero_(), last.bias.zero_()
        base = dict(model.base_encoder.named_parameters())
        for name, slow in model.momentum_encoder.named_parameters():
            slow.copy_(base[name] * (SLOW_START if base[name].requires_grad else 1))


def train(case: Case, init: dict[str, Tensor], x1: Tensor, x2: Tensor, dtype: torch.dtype):
    """Losses, first gradients, final state."""
    model = Model(case)
    model.load_state_dict(init, strict=False)
    model.to(dtype).train()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    rules = {k: Lars(p.detach()) for k, p in trained.items()}
    losses, first = [], {}
    for t in range(STEPS):
        loss = model.loss(x1[t].to(dtype), x2[t].to(dtype), MOMENTUM[t])
        grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values()))))
        if t == 0:
            first = {k: g.clone() for k, g in grads.items()}
        with torch.no_grad():
            for name, p in trained.items():
                if case.lars:
                    p.copy_(rules[name].step(p, grads[name], case.lr[t]))
                else:
                    p -= case.lr[t] * grads[name]
        losses.append(loss.item())
    return losses, first, moco_torch.state_of(model)


def is_stored(name: str) -> bool:
    """Of the start: all that the momentum encoder's cannot be computed from."""
    return not name.startswith("momentum_encoder") or "running_" in name


def is_told(name: str) -> bool:
    """Of the end: all buffers, and of the parameters what is special to a backbone and one layer more."""
    if "running_" in name or "_encoder." not in name:
        return True
    parts = ("patch_embed", "pos_embed", "cls_token", "attn.proj", "norm2", "conv", "bn", "downsample")
    return any(part in name for part in parts)


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(11)
    x1 = torch.stack([pictures(BATCH, g) for _ in range(STEPS)])
    x2 = torch.stack([views(x, g) for x in x1])
    out = {"m": np.array(MOMENTUM, np.float32)}
    for t in range(STEPS):
        out |= {f"x1.{t}": numpy(x1[t]), f"x2.{t}": numpy(x2[t])}
    for label, case in CASES.items():
        model = Model(case)
        initialise(model, g)
        init = moco_torch.state_of(model)
        losses, grads, final = train(case, init, x1, x2, torch.float32)
        exact = train(case, init, x1, x2, torch.float64)
        assert np.allclose(losses, exact[0], rtol=5e-6), f"{label}: {losses} against {exact[0]} in f64"
        worst = 0.0
        for what, ours, wanted in [("gradient", grads, exact[1]), ("final", final, exact[2])]:
            assert set(ours) == set(wanted)
            for name, value in ours.items():
                if float(wanted[name].norm()) > 2e-6:
                    worst = max(worst, agree(f"{label}: {what} {name}", value, wanted[name], 3e-5))
        print(f"{label}: f32 against f64 at most {worst:.1e}; losses {[round(x, 4) for x in losses]}")
        out[f"{label}.loss"] = np.array(losses, np.float32)
        out[f"{label}.lr"] = np.array(case.lr, np.float32)
        out[f"{label}.features"] = numpy(model.features(x1[0]))
        for prefix, tensors, kept in [("init", init, is_stored), ("grad", grads, lambda k: True), ("final", final, is_told)]:
            out |= {f"{label}.{prefix}.{k}": numpy(v) for k, v in tensors.items() if kept(k)}
    return out


# torchvision's whole ResNet-50 and ResNet-18


def hashed(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers of [-1, 1) that any program can make again: multiplicative hashing of name and place."""
    seed = 0
    for byte in name.encode():
        seed = (seed * 31 + byte) % 2**32
    place = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (place * 2654435761 + seed) % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    mixed = mixed ^ (mixed >> 13)
    return torch.from_numpy((mixed.astype(np.float64) / 2**31 - 1).astype(np.float32).reshape(shape))


def fill(net: nn.Module, last: str) -> None:
    """Filters within sqrt(6 / fan-in), gains about 1, a fifth of that for the last BN of each block;
    everything else small. (With gains of 1 there, f32 does not settle the gradients of 16 blocks.)"""
    with torch.no_grad():
        for name, value in moco_torch.state_of(net).items():
            noise = hashed(name, tuple(value.shape))
            if value.ndim > 1:
                noise = noise * np.float32((6 / value[0].numel()) ** 0.5)
            elif name.endswith(("weight", "running_var")):
                noise = 1 + noise * np.float32(0.1)
                noise = noise * np.float32(0.2 if name.endswith(f".{last}.weight") else 1)
            else:
                noise = noise * np.float32(0.1)
            net.state_dict()[name].copy_(noise)


def probe(gradient: Tensor) -> Tensor:
    """Sixteen numbers of a gradient, evenly taken, and its norm."""
    flat = gradient.flatten()
    places = torch.arange(16) * len(flat) // 16
    return torch.cat([flat[places], flat.norm()[None]])


def margin(net: nn.Module, x: Tensor) -> float:
    """How far from 0 the ReLU nearest to it stands, in f32 errors: the least |what goes in| over the largest
    difference of f32 and f64 in that layer. Below about 1, f32 may put it on its other side."""
    seen = {}
    for dtype in [torch.float32, torch.float64]:
        model, found = copy.deepcopy(net).to(dtype).eval(), []
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().double().clone()))
        with torch.no_grad():
            model(x.to(dtype))
        seen[dtype] = found
    pairs = zip(seen[torch.float32], seen[torch.float64], strict=True)
    return min(float(exact.abs().min() / (ours - exact).abs().max()) for ours, exact in pairs)


def build_resnet50() -> dict[str, np.ndarray]:
    """In training form, on two pictures of 64 px, the features and renewed statistics; in evaluation form, on
    one of 32 px, the features and all gradients. A ReLU that f32 puts on its other side moves gradients by a few
    in ten thousand: of 1.5 million some do, of a small picture's 185 thousand often none. So the picture is the
    first of a row on which all stand well away from 0."""
    out = {}
    both = hashed("x", (2, 3, 64, 64))
    for label, net, last in [
        ("resnet50", torchvision.models.resnet50(), "bn3"),
        ("resnet18", torchvision.models.resnet18(), "bn2"),
    ]:
        net.fc = nn.Identity()
        fill(net, last)
        state = moco_torch.state_of(net)
        out |= {f"{label}.shape.{name}": np.array(value.shape, np.int32) for name, value in state.items()}
        picture = next(i for i in range(200) if margin(net, hashed(f"x.{i}", (1, 3, 32, 32))) >= MARGIN)
        out[f"{label}.picture"] = np.array(picture, np.int32)
        one = hashed(f"x.{picture}", (1, 3, 32, 32))
        found = {}
        for dtype in [torch.float32, torch.float64]:
            model = copy.deepcopy(net).to(dtype).train()
            trained = model(both.to(dtype)).detach()
            new = {k: v for k, v in moco_torch.state_of(model).items() if "running_" in k}
            model = copy.deepcopy(net).to(dtype).eval()
            evaluated = model(one.to(dtype))
            named = dict(model.named_parameters())
            ct = hashed("ct", tuple(evaluated.shape)).to(dtype)
            grads = dict(zip(named, torch.autograd.grad((evaluated * ct).sum(), list(named.values()))))
            found[dtype] = {"trained": trained, "evaluated": evaluated.detach()}
            found[dtype] |= {f"new.{k}": v for k, v in new.items()} | {f"grad.{k}": v for k, v in grads.items()}
        ours, exact = found[torch.float32], found[torch.float64]
        worst = {}
        for name in exact:
            kind = name.split(".")[0]
            worst[kind] = max(worst.get(kind, 0.0), agree(f"{label}: {name}", ours[name], exact[name], 5e-6))
        told = {k: f"{v:.1e}" for k, v in worst.items()}
        print(f"{label}: f32 against f64 at most {told}; picture {picture}, margin {margin(net, one):.1f}")
        for name, value in exact.items():
            whole = name in ("trained", "evaluated")
            out[f"{label}.{name}"] = numpy((value if whole else probe(value)).float())
    return out
