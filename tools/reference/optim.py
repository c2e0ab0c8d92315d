"""adamw.safetensors and schedules.json."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import torch

import moco_jax
from common import agree, numpy

LR = [0.0, 1e-3, 1e-2, 3e-2, 1e-2, 1e-3]
SHAPES = [(6, 5), (7,), (1, 1, 8), ()]


def build_adamw() -> dict[str, np.ndarray]:
    """Six steps on four tensors with given gradients: large, tiny, and (last step) zero ones."""
    g = torch.Generator().manual_seed(4)
    config = moco_jax.Config()
    out = {"lr": np.array(LR, np.float32)}
    for i, shape in enumerate(SHAPES):
        p = torch.nn.Parameter(torch.randn(shape, generator=g))
        optimizer = torch.optim.AdamW([p], lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
        ours = (jnp.asarray(numpy(p)), jnp.zeros(shape), jnp.zeros(shape))
        out[f"init.{i}"] = numpy(p).copy()
        for t, lr in enumerate(LR):
            # The scales include gradients next to eps, where its place outside the root matters.
            scale = 0.0 if t == len(LR) - 1 else [1.0, 1e-7, 1e-2, 30.0][(i + t) % 4]
            p.grad = scale * torch.randn(shape, generator=g)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            ours = moco_jax.adamw(ours[0], numpy(p.grad), ours[1], ours[2], t + 1, lr, config)
            out[f"grad.{i}.{t}"] = numpy(p.grad).copy()
            out[f"param.{i}.{t}"] = numpy(p).copy()
        state = optimizer.state[p]
        for name, value, jax_value in zip(["param", "m", "v"], [p, state["exp_avg"], state["exp_avg_sq"]], ours):
            agree(f"adamw.{name}.{i}", jax_value, value, 5e-6)
        out |= {f"m.{i}": numpy(state["exp_avg"]), f"v.{i}": numpy(state["exp_avg_sq"])}
    return out


def learning_rate(epoch: float, warmup_epochs: float, epochs: float, peak: float) -> float:
    """Linear warm-up from 0, then half a cosine to 0; `epoch` counts parts of epochs."""
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))


def momentum(epoch: float, epochs: float, start: float) -> float:
    """Half a cosine from `start` to 1."""
    return 1 - 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * (1 - start)


def build_schedules() -> dict:
    """Values per step, computed from the epoch formulas with e = step / steps per epoch."""
    runs = [  # base lr, batch, steps per epoch, warm-up epochs, epochs
        (1.5e-4, 4096, 312, 40, 300),
        (1e-3, 128, 390, 150 / 390, 1500 / 390),
        (0.6, 4096, 312, 0, 100),
        (1e-3, 256, 1, 3, 4),
    ]
    out = {"learning_rate": [], "momentum": []}
    for base, batch, per_epoch, warmup, epochs in runs:
        total, warm = round(epochs * per_epoch), round(warmup * per_epoch)
        peak = base * batch / 256
        steps = sorted(
            s for s in {0, 1, warm // 2, warm - 1, warm, warm + 1, total // 3, total // 2, total - 1} if 0 <= s < total
        )
        out["learning_rate"].append(
            {
                "base_lr": base,
                "batch": batch,
                "warmup_steps": warm,
                "total_steps": total,
                "points": [[s, learning_rate(s / per_epoch, warmup, epochs, peak)] for s in steps],
            }
        )
        for start in [0.99, 0.996]:
            out["momentum"].append(
                {
                    "start": start,
                    "total_steps": total,
                    "points": [[s, momentum(s / per_epoch, epochs, start)] for s in steps],
                }
            )
    return out
