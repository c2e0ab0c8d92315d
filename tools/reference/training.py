"""vit.safetensors and moco_step.safetensors: the whole model, and five whole training steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

import moco_jax
import moco_torch
from common import agree, comparable, numpy, relative_norm, unseen

STEPS, BATCH = 5, 8
LR = [0.0, 2.5e-4, 5e-4, 1e-3, 1e-3]
# Far smaller than a recipe's .99, so that a missing or misplaced moving average shows in the loss.
MOMENTUM = [0.9, 0.92, 0.95, 0.97, 0.99]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def pictures(count: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth coloured waves with a little noise, normalised: [count, 3, 16, 16]."""
    axis = torch.arange(16, dtype=torch.float32) / 16
    draw = lambda *shape: torch.rand(shape, generator=generator)
    frequency, phase, colour = 6 * draw(count, 2, 1, 1), 6.3 * draw(count, 1, 1), draw(count, 3, 1, 1)
    angle = 6.3 * (frequency[:, 0] * axis[:, None] + frequency[:, 1] * axis) + phase
    image = colour * 0.6 + 0.2 + 0.2 * angle.sin()[:, None] + 0.05 * (draw(count, 3, 16, 16) - 0.5)
    return (image.clamp(0, 1) - MEAN[:, None, None]) / STD[:, None, None]


def views(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A second look at the same pictures: flipped, tinted, noisier."""
    tint = 1 + 0.3 * torch.randn((len(x), 3, 1, 1), generator=generator)
    return x.flip(-1) * tint + 0.1 * torch.randn(x.shape, generator=generator)


def build_vit() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(2)
    config = moco_torch.Config()
    model = moco_torch.MocoV3(config)
    moco_torch.initialise(model, g)
    vit = model.base_encoder.requires_grad_(True)
    vit.head = torch.nn.Identity()
    x = pictures(4, g).requires_grad_(True)
    y = vit(x)
    ct = torch.randn(y.shape, generator=g)
    wrt = {"x": x} | {k: v for k, v in vit.named_parameters() if k != "pos_embed"}
    vit.pos_embed.requires_grad_(False)
    grads = dict(zip(wrt, torch.autograd.grad((y * ct).sum(), wrt.values())))

    params = {k: jnp.asarray(numpy(v)) for k, v in moco_torch.state_of(vit).items()}
    jax_y, vjp = jax.vjp(lambda p, x: moco_jax.vit(p, x, moco_jax.Config()), params, jnp.asarray(numpy(x)))
    jax_params, jax_x = vjp(jnp.asarray(numpy(ct)))
    agree("vit.y", jax_y, y, 5e-6)
    for name, grad in grads.items():
        ours = jax_x if name == "x" else jax_params[name]
        agree(f"vit.grad.{name}", comparable(name, ours), comparable(name, grad), 2e-5)
    out = {k: numpy(v) for k, v in moco_torch.state_of(vit).items()}
    out |= {"x": numpy(x), "y": numpy(y), "ct": numpy(ct)}
    return out | {f"grad.{k}": numpy(v) for k, v in grads.items()}


def train_torch(init: dict, x1, x2, dtype: torch.dtype):
    """Losses, first gradients and final state of the five steps."""
    model = moco_torch.MocoV3(moco_torch.Config())
    model.load_state_dict(init, strict=False)
    model.to(dtype).train()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    losses, first = [], {}
    for t in range(STEPS):
        optimizer.param_groups[0]["lr"] = LR[t]
        loss = model.loss(x1[t].to(dtype), x2[t].to(dtype), MOMENTUM[t])
        optimizer.zero_grad()
        loss.backward()
        if t == 0:
            first = {k: p.grad.clone() for k, p in trained.items()}
        optimizer.step()
        losses.append(loss.item())
    return losses, first, moco_torch.state_of(model)


def train_jax(init: dict, x1, x2):
    config = moco_jax.Config()
    state = moco_jax.init_state({k: jnp.asarray(numpy(v)) for k, v in init.items()})
    first = moco_jax.loss_and_grads(state, numpy(x1[0]), numpy(x2[0]), MOMENTUM[0], config)[1]
    step = jax.jit(lambda *args: moco_jax.step(*args, config))
    losses = []
    for t in range(STEPS):
        state, loss = step(state, numpy(x1[t]), numpy(x2[t]), jnp.float32(LR[t]), jnp.float32(MOMENTUM[t]))
        losses.append(float(loss))
    return losses, first, moco_jax.named_tensors(state)


def compare(label: str, a, b, loss_tol: float, grad_tol: float, param_tol: float) -> None:
    """Prints the largest differences of two runs and asserts them."""
    loss = max(abs(x - y) / abs(y) for x, y in zip(a[0], b[0]))
    assert loss <= loss_tol, f"{label}: losses differ by {loss:.2e}"
    worst = {}
    for what, i, tolerance in [("gradients", 1, grad_tol), ("parameters", 2, param_tol)]:
        assert set(a[i]) == set(b[i]), f"{label}: names differ: {sorted(set(a[i]) ^ set(b[i]))}"
        for name in a[i]:
            pair = comparable(name, a[i][name]), comparable(name, b[i][name])
            # The projector's first running mean sees the noise of the final norm's bias.
            allowed = 5e-3 if name.endswith("encoder.head.1.running_mean") else tolerance
            agree(f"{label}: {what} {name}", *pair, allowed)
            if allowed == tolerance:
                worst[what] = max(worst.get(what, (0.0, "")), (relative_norm(*pair), name))
    noise = max(np.abs(unseen(name, grad)).max(initial=0.0) for name, grad in a[1].items())
    assert noise <= 1e-6, f"{label}: a gradient that is zero in theory is {noise:.1e}"
    print(f"{label}: loss {loss:.1e}; " + "; ".join(f"{k} {v:.1e} ({n})" for k, (v, n) in worst.items()))


def build_moco_step() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(3)
    model = moco_torch.MocoV3(moco_torch.Config())
    moco_torch.initialise(model, g)
    init = moco_torch.state_of(model)
    x1 = torch.stack([pictures(BATCH, g) for _ in range(STEPS)])
    x2 = torch.stack([views(x, g) for x in x1])

    losses, grads, final = run = train_torch(init, x1, x2, torch.float32)
    compare("PyTorch f32 against f64", run, train_torch(init, x1, x2, torch.float64), 2e-6, 2e-5, 2e-4)
    compare("JAX f32 against PyTorch f32", train_jax(init, x1, x2), run, 2e-6, 2e-5, 2e-4)

    out = {"loss": np.array(losses, np.float32), "lr": np.array(LR, np.float32), "m": np.array(MOMENTUM, np.float32)}
    for t in range(STEPS):
        out |= {f"x1.{t}": numpy(x1[t]), f"x2.{t}": numpy(x2[t])}
    for prefix, tensors in [("init", init), ("grad", grads), ("final", final)]:
        out |= {f"{prefix}.{name}": numpy(value) for name, value in tensors.items()}
    return out
