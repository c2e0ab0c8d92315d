"""MoCo v3 on a small ViT, in PyTorch, written from the equations.

Sources: Chen, Xie, He, "An Empirical Study of Training Self-Supervised Vision Transformers"
(Alg. 1 and Sec. 3), Dosovitskiy et al. for the ViT. Only the *names* of parameters follow the
public checkpoints, so that a state can be compared key by key.

This is the slow, plain side of the reference: modules, autograd, one statement per equation.
`moco_jax.py` says the same in another framework and in another shape; `make.py` refuses to write
fixtures on which the two disagree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    blocks: int = 2
    dim: int = 24
    heads: int = 3
    patch: int = 4
    image: int = 16
    mlp_ratio: int = 4
    hidden: int = 32
    out: int = 16
    temperature: float = 0.2


class Attention(nn.Module):
    """Multi-head self-attention; rows of `qkv.weight` are all of Q, then all of K, then all of V."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        per_head = []
        q, k, v = self.qkv(x).split(dim, dim=-1)
        width = dim // self.heads
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / width**0.5
            per_head.append(scores.softmax(dim=-1) @ v[..., part])
        return self.proj(torch.cat(per_head, dim=-1))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = Mlp(config.dim, config.mlp_ratio * config.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """[B, 3, S, S] -> [B, (S/P)^2, D], patches in row-major order."""

    def __init__(self, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def position_table(grid: int, dim: int) -> Tensor:
    """[1 + grid^2, dim] in f64: a zero row for CLS, then [sin r w, cos r w, sin c w, cos c w].

    r and c are the patch's row and column, w_i = 10000^(-i / (dim/4)).
    """
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows = [torch.zeros(dim, dtype=torch.float64)]
    for r in range(grid):
        for c in range(grid):
            rows.append(torch.cat([(r * omega).sin(), (r * omega).cos(), (c * omega).sin(), (c * omega).cos()]))
    return torch.stack(rows)


class Vit(nn.Module):
    """Pre-norm ViT; the output is the CLS token after the final norm, through `head`."""

    def __init__(self, config: Config):
        super().__init__()
        table = position_table(config.image // config.patch, config.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(table.float()[None], requires_grad=False)
        self.patch_embed = PatchEmbed(config.patch, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def head_mlp(sizes: list[int]) -> nn.Sequential:
    """Linear without bias and BN, ReLU between; the last BN has no affine parameters."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
        last = i == len(sizes) - 2
        layers.append(nn.Linear(fan_in, fan_out, bias=False))
        layers.append(nn.BatchNorm1d(fan_out, eps=1e-5, momentum=0.1, affine=not last))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def contrastive_loss(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """Alg. 1 `ctr`: row i of `q` against all rows of `k`, the positive is row i; no gradient into k."""
    q = F.normalize(q, dim=1, eps=1e-12)
    k = F.normalize(k.detach(), dim=1, eps=1e-12)
    logits = q @ k.T / temperature
    return F.cross_entropy(logits, torch.arange(len(q))) * 2 * temperature


class MocoV3(nn.Module):
    contrastive_loss = staticmethod(contrastive_loss)

    def __init__(self, config: Config):
        super().__init__()
        self.temperature = config.temperature
        self.base_encoder = Vit(config)
        self.base_encoder.head = head_mlp([config.dim, config.hidden, config.hidden, config.out])
        self.predictor = head_mlp([config.out, config.hidden, config.out])
        self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)
        self.base_encoder.patch_embed.requires_grad_(False)

    @torch.no_grad()
    def update_momentum_encoder(self, m: float) -> None:
        """Parameters only: the momentum encoder's BN buffers are its own."""
        for slow, fast in zip(self.momentum_encoder.parameters(), self.base_encoder.parameters(), strict=True):
            slow.copy_(m * slow + (1 - m) * fast)

    def loss(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        q1 = self.predictor(self.base_encoder(x1))
        q2 = self.predictor(self.base_encoder(x2))
        self.update_momentum_encoder(m)
        with torch.no_grad():
            k1 = self.momentum_encoder(x1)
            k2 = self.momentum_encoder(x2)
        return self.contrastive_loss(q1, k2, self.temperature) + self.contrastive_loss(q2, k1, self.temperature)


def initialise(model: MocoV3, generator: torch.Generator) -> None:
    """The recipe's initialisation, then noise where it would hide mistakes.

    All biases zero, all gains one, a CLS token of 1e-6 and two equal encoders let a program that
    swaps two norms or forgets the moving average pass; so biases get N(0, .02), gains 1 + N(0, .1),
    CLS N(0, .02), BN buffers something else than 0/1, and the momentum encoder starts *near* the
    base encoder, not equal to it.
    """

    def uniform(parameter: Tensor, bound: float) -> None:
        parameter.copy_(torch.empty_like(parameter).uniform_(-bound, bound, generator=generator))

    def noise(parameter: Tensor, std: float) -> Tensor:
        return torch.randn(parameter.shape, generator=generator) * std

    with torch.no_grad():
        for name, module in model.named_modules():
            if name.startswith("momentum_encoder"):
                continue
            if isinstance(module, nn.Linear):
                fan_out, fan_in = module.weight.shape
                if ".head." in name or name.startswith("predictor"):
                    uniform(module.weight, fan_in**-0.5)
                elif name.endswith("qkv"):
                    uniform(module.weight, (6 / (fan_in + fan_out // 3)) ** 0.5)
                else:
                    uniform(module.weight, (6 / (fan_in + fan_out)) ** 0.5)
            elif isinstance(module, nn.Conv2d):
                uniform(module.weight, (6 / (module.weight[0].numel() + module.weight.shape[0])) ** 0.5)
            if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)) and module.weight is not None:
                module.weight.copy_(1 + noise(module.weight, 0.1))
            if getattr(module, "bias", None) is not None:
                module.bias.copy_(noise(module.bias, 0.02))
        model.base_encoder.cls_token.copy_(noise(model.base_encoder.cls_token, 0.02))
        base = dict(model.base_encoder.named_parameters())
        for name, slow in model.momentum_encoder.named_parameters():
            fast = base[name]
            if name == "pos_embed" or name.startswith("patch_embed"):
                slow.copy_(fast)  # frozen: equal for good
            else:
                slow.copy_(fast + noise(fast, 0.1 * float(fast.std())))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(noise(buffer, 0.1))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and BN buffers by name; PyTorch's step counters left out."""
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
