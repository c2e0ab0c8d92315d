"""probe.safetensors: the linear probe on frozen features, in PyTorch.

One nn.Linear and one torch.optim.SGD for each learning rate, as the public linear classification
script has them: momentum .9, no weight decay, cosine stepped by epoch, no warm-up. Checked against the
same in f64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common import agree, numpy

PICTURES, TEST, DIM, CLASSES, BATCH, EPOCHS = 52, 20, 12, 5, 16, 4
BASE = [0.3, 3.0, 30.0]
PEAK = [rate * BATCH / 256 for rate in BASE]


def probe(x: Tensor, labels: Tensor, test: Tensor, order: Tensor, init: Tensor, with_norm: bool) -> dict[str, Tensor]:
    """Trains a classifier for each rate; `order` holds the pictures of each step of each epoch."""
    norms = [nn.BatchNorm1d(DIM, affine=False, dtype=x.dtype) if with_norm else nn.Identity() for _ in PEAK]
    heads = [nn.Linear(DIM, CLASSES, dtype=x.dtype) for _ in PEAK]
    for head in heads:
        head.weight.data.copy_(init)
        head.bias.data.zero_()
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.0, momentum=0.9, weight_decay=0.0) for head in heads]
    loss, top1 = [], []
    for epoch in range(EPOCHS):
        lr = [peak * 0.5 * (1.0 + math.cos(math.pi * epoch / EPOCHS)) for peak in PEAK]
        for ids in order[epoch]:
            losses, right = [], []
            for rate, norm, head, optimizer in zip(lr, norms, heads, optimizers):
                optimizer.param_groups[0]["lr"] = float(np.float32(rate))
                logits = head(norm(x[ids]))
                mean = functional.cross_entropy(logits, labels[ids])
                optimizer.zero_grad()
                mean.backward()
                optimizer.step()
                losses.append(mean.detach())
                right.append(100.0 * (logits.argmax(1) == labels[ids]).to(x.dtype).mean())
            loss.append(torch.stack(losses))
            top1.append(torch.stack(right))
    out = {
        "loss": torch.stack(loss),
        "top1": torch.stack(top1),
        "weight": torch.stack([head.weight.data for head in heads]),
        "bias": torch.stack([head.bias.data for head in heads]),
    }
    for key in ["weight", "bias"]:
        buffers = [o.state[getattr(h, key)]["momentum_buffer"] for o, h in zip(optimizers, heads)]
        out[f"momentum_buffer.{key}"] = torch.stack(buffers)
    if with_norm:
        out["running_mean"], out["running_var"] = norms[0].running_mean, norms[0].running_var
    with torch.no_grad():
        logits = torch.stack([head.eval()(norm.eval()(test)) for norm, head in zip(norms, heads)], 1)
    best = logits.topk(2, dim=2).values
    # Else the last bit could decide.
    assert (best[..., 0] - best[..., 1]).min() > 1e-3, "a test picture lies between two classes"
    out["predicted"] = logits.argmax(2)
    return out


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(23)
    centres = torch.randn(CLASSES, DIM, generator=g)
    labels = torch.randint(CLASSES, (PICTURES,), generator=g)
    # Features of unequal scale, off zero: what a norm before the classifier is for.
    scale = torch.logspace(-1, 0.5, DIM)
    draw = lambda of: scale * (centres[of] + torch.randn(len(of), DIM, generator=g)) + 0.5
    x, test = draw(labels), draw(torch.randint(CLASSES, (TEST,), generator=g))
    init = 0.01 * torch.randn(CLASSES, DIM, generator=g)
    steps = PICTURES // BATCH
    order = torch.stack([torch.randperm(PICTURES, generator=g)[: steps * BATCH].view(steps, BATCH) for _ in range(EPOCHS)])
    out = {"features": x, "labels": labels.int(), "test": test, "init": init, "order": order.int()}
    for case, with_norm in [("plain", False), ("norm", True)]:
        found = probe(x, labels, test, order, init, with_norm)
        exact = probe(x.double(), labels, test.double(), order, init.double(), with_norm)
        for key, value in found.items():
            agree(f"probe.{case}.{key}", value, exact[key], 5e-6)
            out[f"{case}.{key}"] = value.int() if key == "predicted" else value
    return {key: numpy(value).copy() for key, value in out.items()}
