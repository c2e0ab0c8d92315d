"""finetune.safetensors: training with labels, three steps, by timm's ViT, mixtures and losses; and positions.

timm's own model, `mixup_target` and `SoftTargetCrossEntropy`; pictures are mixed as its `Mixup` does it,
with fixed draws, and branches scaled as its `drop_path` does it, by fixed masks. Learning rates fall from the head to the embedding (BEiT); biases, norms, class
token and positions are not decayed (DeiT).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from common import agree, comparable, numpy, relative_norm
from training import pictures

STEPS, BATCH, CLASSES, BLOCKS = 3, 8, 5, 2
SMOOTHING, LAYER_DECAY, DECAY = 0.1, 0.5, 0.1
LR = [2e-3, 4e-3, 6e-3]
# Blend of the first step; rectangle of the second: top, bottom, left, right; the third is not mixed.
MIXTURES = [(0.3, None), (1.0, (3, 9, 5, 16)), (1.0, None)]


class Scaled(nn.Module):
    """timm's drop_path, its mask given."""

    def __init__(self):
        super().__init__()
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, 1, 1).to(x.dtype)


def build_model() -> VisionTransformer:
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=BLOCKS, num_heads=3, num_classes=CLASSES
    )
    for block in model.blocks:
        block.drop_path1, block.drop_path2 = Scaled(), Scaled()
    return model


def mix(x: Tensor, blend: float, box) -> tuple[Tensor, float]:
    """The batch as timm's Mixup leaves it (mode "batch"), and the share of each picture's own label."""
    if box is None:
        return x * blend + x.flip(0) * (1 - blend), blend
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[-1] * x.shape[-2])


def layer(name: str) -> int:
    """BEiT's: 0 is the embedding, BLOCKS + 1 the head."""
    if name.startswith(("cls_token", "pos_embed", "patch_embed")):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else BLOCKS + 1


def groups(model: nn.Module) -> list[dict]:
    return [
        dict(
            params=[p],
            weight_decay=0.0 if p.ndim == 1 or name in ("cls_token", "pos_embed") else DECAY,
            scale=LAYER_DECAY ** (BLOCKS + 1 - layer(name)),
        )
        for name, p in model.named_parameters()
    ]


def train(init: dict, x: Tensor, labels: Tensor, scales: Tensor, dtype: torch.dtype):
    model = build_model()
    model.load_state_dict(init)
    model.to(dtype).train()
    optimizer = torch.optim.AdamW(groups(model), lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    losses, first = [], {}
    for t in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR[t] * group["scale"]
        for i, block in enumerate(model.blocks):
            block.drop_path1.scale, block.drop_path2.scale = scales[t, :, i, 0], scales[t, :, i, 1]
        mixed, share = mix(x[t].to(dtype), *MIXTURES[t])
        target = mixup_target(labels[t].long(), CLASSES, share, SMOOTHING).to(dtype)
        loss = SoftTargetCrossEntropy()(model(mixed), target)
        optimizer.zero_grad()
        loss.backward()
        if t == 0:
            first = {k: p.grad.clone() for k, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, first, dict(model.state_dict())


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(17)
    model = build_model()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.ndim == 1 and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            else:
                p.copy_(noise * (p[0].numel() ** -0.5 if p.ndim in (2, 4) else 0.1))
    init = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.stack([pictures(BATCH, g) for _ in range(STEPS)])
    labels = torch.randint(CLASSES, (STEPS, BATCH), generator=g, dtype=torch.int32)
    # Rates 0 and .25 of the two blocks, as fixed masks.
    kept = (torch.rand((STEPS, BATCH, BLOCKS, 2), generator=g) >= 0.25).float() / 0.75
    kept[:, :, 0] = 1
    losses, grads, final = run = train(init, x, labels, kept, torch.float32)
    exact = train(init, x, labels, kept, torch.float64)
    assert np.allclose(losses, exact[0], rtol=2e-6), (losses, exact[0])
    for what, ours, theirs in [("gradient", grads, exact[1]), ("final", final, exact[2])]:
        for name in ours:
            pair = comparable(name, ours[name]), comparable(name, theirs[name])
            agree(f"finetune: {what} {name}", *pair, 2e-5)
    moved = min((relative_norm(init[k], final[k]), k) for k in final if not k.endswith("qkv.bias"))
    assert moved[0] > 1e-3, f"{moved[1]} moves by {moved[0]:.1e}: nothing to compare"
    print(f"finetune: losses {losses}; least moved {moved}")

    out = {"loss": np.array(losses, np.float32), "lr": np.array(LR, np.float32)}
    for t, (blend, box) in enumerate(MIXTURES):
        mixed, share = mix(x[t], blend, box)
        out |= {f"x.{t}": numpy(x[t]), f"mixed.{t}": numpy(mixed), f"labels.{t}": numpy(labels[t])}
        out[f"mix.{t}"] = np.array([blend, *(box or (0, 0, 0, 0)), share], np.float32)
        out[f"drop_path.{t}"] = numpy(kept[t])
    for prefix, tensors in [("init", init), ("grad", grads), ("final", final)]:
        out |= {f"{prefix}.base_encoder.{k}": numpy(v) for k, v in tensors.items()}

    grid = torch.randn((1, 2, 5, 5), generator=g)
    tokens = lambda grid: torch.cat([torch.full((1, 1, 2), 7.0), grid.flatten(2).transpose(1, 2)], dim=1)
    out["positions.5"] = numpy(tokens(grid))
    for side in (3, 8):
        resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        out[f"positions.{side}"] = numpy(tokens(resized))
    return out
