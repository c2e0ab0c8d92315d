"""MoCo v3 on a ViT, in JAX: the fast, functional side of the reference.

Everything is a flat dictionary from the public parameter names to arrays in PyTorch's layouts, so
that a state can be compared with `moco_torch.py` key by key. The same functions, unchanged, are
what `tools/bench_jax.py` times: heads are a batch dimension of one einsum, the patch projection is
a matrix product, parameters are f32 masters that are cast to the compute dtype where they are used.

Suffixes name axes: b batch, t tokens, d model width, h heads, e width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

Arrays = dict[str, jax.Array]


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
    compute: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    weight_decay: float = 0.1


# ---------------------------------------------------------------- layers


def linear(x, weight, bias=None):
    """x [..., in], weight [out, in]; the product in x's dtype."""
    y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype))
    return y if bias is None else y + bias.astype(x.dtype)


def layer_norm(x, weight, bias, eps=1e-6):
    """Statistics in f32 whatever x is."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    var = jnp.square(x32 - mean).mean(-1, keepdims=True)
    return ((x32 - mean) * jax.lax.rsqrt(var + eps) * weight + bias).astype(x.dtype)


def batch_norm(x, weight=None, bias=None, eps=1e-5):
    """Training form over axis 0. Returns y and the statistics (mean, biased variance), all f32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(0)
    var = jnp.square(x32 - mean).mean(0)
    y = (x32 - mean) * jax.lax.rsqrt(var + eps)
    if weight is not None:
        y = y * weight + bias
    return y, (mean, var)


def running(mean, var, stats, batch, momentum=0.1):
    """New BN buffers; the running variance takes the unbiased one."""
    new_mean, new_var = stats
    new_var = new_var * (batch / (batch - 1))
    return mean + momentum * (new_mean - mean), var + momentum * (new_var - var)


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def attention(x_btd, qkv_weight, qkv_bias, proj_weight, proj_bias, heads):
    b, t, d = x_btd.shape
    qkv = linear(x_btd, qkv_weight, qkv_bias).reshape(b, t, 3, heads, d // heads)
    q_bhte, k_bhte, v_bhte = qkv.transpose(2, 0, 3, 1, 4)
    scores = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhte, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * (d // heads) ** -0.5, axis=-1).astype(x_btd.dtype)
    y_bhte = jnp.einsum("bhts,bhse->bhte", weights, v_bhte)
    return linear(y_bhte.transpose(0, 2, 1, 3).reshape(b, t, d), proj_weight, proj_bias)


def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    return linear(gelu(linear(x, fc1_weight, fc1_bias)), fc2_weight, fc2_bias)


def patch_embed(x, weight, bias):
    """[B, 3, S, S] -> [B, (S/P)^2, D] as one matrix product over flattened patches."""
    b, c, s, _ = x.shape
    dim, patch = weight.shape[0], weight.shape[-1]
    grid = s // patch
    cells = x.reshape(b, c, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    return linear(cells.reshape(b, grid * grid, c * patch * patch), weight.reshape(dim, -1), bias)


def position_table(grid, dim):
    """[1 + grid^2, dim], zero for CLS; the first half of the width encodes the row."""
    omega = jnp.exp(-jnp.log(10000.0) * jnp.arange(dim // 4) / (dim // 4))
    angle = jnp.arange(grid)[:, None] * omega
    axis = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
    table = jnp.concatenate([jnp.repeat(axis, grid, 0), jnp.tile(axis, (grid, 1))], axis=1)
    return jnp.concatenate([jnp.zeros((1, dim)), table])


def l2_normalize(x, eps=1e-12):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), eps)


def cross_entropy(logits, labels):
    """Mean over rows."""
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(logits, axis=1) - picked).mean()


def contrastive_loss(q, k, temperature):
    q, k = l2_normalize(q), jax.lax.stop_gradient(l2_normalize(k))
    return 2 * temperature * cross_entropy(q @ k.T / temperature, jnp.arange(q.shape[0]))


# ---------------------------------------------------------------- model


def part(arrays: Arrays, prefix: str) -> Arrays:
    """The entries under `prefix.`, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in arrays.items() if k.startswith(prefix + ".")}


def vit(p: Arrays, x, config: Config):
    """CLS features [B, D] after the final norm, in the compute dtype."""
    x = patch_embed(x.astype(config.compute), p["patch_embed.proj.weight"], p["patch_embed.proj.bias"])
    cls = jnp.broadcast_to(p["cls_token"].astype(x.dtype), (x.shape[0], 1, config.dim))
    x = jnp.concatenate([cls, x], axis=1) + p["pos_embed"].astype(x.dtype)
    for i in range(config.blocks):
        b = part(p, f"blocks.{i}")
        y = layer_norm(x, b["norm1.weight"], b["norm1.bias"])
        y = attention(
            y, b["attn.qkv.weight"], b["attn.qkv.bias"], b["attn.proj.weight"], b["attn.proj.bias"], config.heads
        )
        x = x + y
        y = layer_norm(x, b["norm2.weight"], b["norm2.bias"])
        x = x + mlp(y, b["mlp.fc1.weight"], b["mlp.fc1.bias"], b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    return layer_norm(x[:, 0], p["norm.weight"], p["norm.bias"])


def head(p: Arrays, buffers: Arrays, x, layers: int, config: Config):
    """Projector or predictor: `layers` times Linear and BN, ReLU between. Returns f32 y and new buffers."""
    new = {}
    for i in range(layers):
        lin, bn = str(3 * i), str(3 * i + 1)
        y = linear(x.astype(config.compute), p[f"{lin}.weight"])
        x, stats = batch_norm(y, p.get(f"{bn}.weight"), p.get(f"{bn}.bias"))
        if i < layers - 1:
            x = jax.nn.relu(x)
        new[f"{bn}.running_mean"], new[f"{bn}.running_var"] = running(
            buffers[f"{bn}.running_mean"], buffers[f"{bn}.running_var"], stats, x.shape[0]
        )
    return x, jax.lax.stop_gradient(new)


def encode(p: Arrays, buffers: Arrays, encoder: str, x, config: Config):
    """Backbone and projector of `encoder`; returns the output and all buffers, this head's renewed."""
    y = vit(part(p, encoder), x, config)
    name = f"{encoder}.head"
    y, new = head(part(p, name), part(buffers, name), y, 3, config)
    return y, buffers | {f"{name}.{k}": v for k, v in new.items()}


def predict(p: Arrays, buffers: Arrays, x, config: Config):
    y, new = head(part(p, "predictor"), part(buffers, "predictor"), x, 2, config)
    return y, buffers | {f"predictor.{k}": v for k, v in new.items()}


# ---------------------------------------------------------------- step


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def is_trained(name: str) -> bool:
    """The momentum encoder, the positions and the patch projection are not."""
    return not (
        is_buffer(name) or name.startswith("momentum_encoder.") or name.endswith("pos_embed") or ".patch_embed." in name
    )


def init_state(params_and_buffers: Arrays) -> dict:
    """The step's state; the optimizer's moments start at zero."""
    split = lambda keep: {k: v for k, v in params_and_buffers.items() if keep(k)}
    trained = split(is_trained)
    return {
        "trained": trained,
        "fixed": split(lambda k: not is_trained(k) and not is_buffer(k) and not k.startswith("momentum_encoder.")),
        "momentum": split(lambda k: k.startswith("momentum_encoder.") and not is_buffer(k)),
        "buffers": split(is_buffer),
        "adam_m": {k: jnp.zeros_like(v) for k, v in trained.items()},
        "adam_v": {k: jnp.zeros_like(v) for k, v in trained.items()},
        "count": jnp.zeros((), jnp.float32),
    }


def adamw(p, g, m, v, count, lr, config: Config):
    """One tensor; `count` is this step's number from 1. Decay is decoupled: -lr * wd * p."""
    m = config.beta1 * m + (1 - config.beta1) * g
    v = config.beta2 * v + (1 - config.beta2) * g * g
    m_hat = m / (1 - config.beta1**count)
    v_hat = v / (1 - config.beta2**count)
    return p - lr * (m_hat / (jnp.sqrt(v_hat) + config.adam_eps) + config.weight_decay * p), m, v


def loss_and_grads(state: dict, x1, x2, m, config: Config):
    """Returns loss, gradients of the trained parameters, the new momentum encoder, the new buffers."""
    ema = {
        name: m * slow + (1 - m) * (state["trained"] | state["fixed"])["base_encoder" + name[len("momentum_encoder") :]]
        for name, slow in state["momentum"].items()
    }

    def loss_fn(trained):
        p = trained | state["fixed"]
        z1, buffers = encode(p, state["buffers"], "base_encoder", x1, config)
        q1, buffers = predict(p, buffers, z1, config)
        z2, buffers = encode(p, buffers, "base_encoder", x2, config)
        q2, buffers = predict(p, buffers, z2, config)
        k1, buffers = encode(ema, buffers, "momentum_encoder", x1, config)
        k2, buffers = encode(ema, buffers, "momentum_encoder", x2, config)
        loss = contrastive_loss(q1, k2, config.temperature) + contrastive_loss(q2, k1, config.temperature)
        return loss, buffers

    (loss, buffers), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["trained"])
    return loss, grads, ema, buffers


def step(state: dict, x1, x2, lr, m, config: Config):
    """q1, q2 -> EMA of parameters -> k1, k2 -> backward -> AdamW. Returns (new state, loss)."""
    loss, grads, ema, buffers = loss_and_grads(state, x1, x2, m, config)
    count = state["count"] + 1
    new = {
        name: adamw(p, grads[name], state["adam_m"][name], state["adam_v"][name], count, lr, config)
        for name, p in state["trained"].items()
    }
    state = {
        "trained": {k: v[0] for k, v in new.items()},
        "fixed": state["fixed"],
        "momentum": ema,
        "buffers": buffers,
        "adam_m": {k: v[1] for k, v in new.items()},
        "adam_v": {k: v[2] for k, v in new.items()},
        "count": count,
    }
    return state, loss


def named_tensors(state: dict) -> Arrays:
    """Parameters and buffers under their public names."""
    return state["trained"] | state["fixed"] | state["momentum"] | state["buffers"]
