"""layers.safetensors: each layer's inputs, output, and gradients of sum(output * ct)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

import moco_jax
import moco_torch
from common import agree, numpy


class Case:
    """One layer. `tensors` are differentiable; `fixed` are given to both functions unchanged."""

    def __init__(self, name, torch_fn, jax_fn, tensors, fixed=None):
        self.name, self.torch_fn, self.jax_fn = name, torch_fn, jax_fn
        self.tensors, self.fixed = tensors, fixed or {}

    def build(self, generator: torch.Generator) -> dict[str, np.ndarray]:
        leaves = {k: v.clone().requires_grad_(True) for k, v in self.tensors.items()}
        y = self.torch_fn(**leaves, **self.fixed)
        ct = torch.randn(y.shape, generator=generator)
        grads = dict(zip(leaves, torch.autograd.grad((y * ct).sum(), leaves.values())))

        names = list(leaves)
        fixed = {k: jnp.asarray(numpy(v)) for k, v in self.fixed.items()}
        jax_y, vjp = jax.vjp(
            lambda *values: self.jax_fn(**dict(zip(names, values)), **fixed),
            *(jnp.asarray(numpy(self.tensors[k])) for k in names),
        )
        jax_grads = dict(zip(names, vjp(jnp.asarray(numpy(ct)))))
        agree(f"{self.name}.y", jax_y, y, 2e-6)
        for k in names:
            a, b = numpy(jax_grads[k]), numpy(grads[k])
            if k == "qkv_bias":  # the key third is rounding noise
                width = len(a) // 3
                a, b = np.delete(a, np.s_[width : 2 * width]), np.delete(b, np.s_[width : 2 * width])
            agree(f"{self.name}.grad.{k}", a, b, 1e-5)

        key = lambda k: k.replace("_weight", ".weight").replace("_bias", ".bias")
        out = {f"{self.name}.{key(k)}": numpy(v) for k, v in (self.tensors | self.fixed).items()}
        out |= {f"{self.name}.y": numpy(y), f"{self.name}.ct": numpy(ct)}
        out |= {f"{self.name}.grad.{key(k)}": numpy(v) for k, v in grads.items()}
        return out


def attention_torch(x, qkv_weight, qkv_bias, proj_weight, proj_bias):
    layer = moco_torch.Attention(x.shape[-1], heads=3)
    values = {"qkv.weight": qkv_weight, "qkv.bias": qkv_bias, "proj.weight": proj_weight, "proj.bias": proj_bias}
    return torch.func.functional_call(layer, values, (x,))


def batch_norm_eval_jax(x, weight, bias, running_mean, running_var):
    return (x - running_mean) / jnp.sqrt(running_var + 1e-5) * weight + bias


def build() -> dict[str, np.ndarray]:
    g = torch.Generator().manual_seed(1)
    normal = lambda *shape, std=1.0: torch.randn(shape, generator=g) * std
    gain = lambda n: 1 + normal(n, std=0.2)
    mean, var = normal(12, std=0.3), 0.5 + torch.rand(12, generator=g)
    labels = torch.tensor([3, 0, 5, 1, 1, 2])

    cases = [
        Case("linear", F.linear, moco_jax.linear, {"x": normal(2, 3, 8), "weight": normal(6, 8), "bias": normal(6)}),
        Case("linear_no_bias", F.linear, moco_jax.linear, {"x": normal(5, 8), "weight": normal(6, 8)}),
        Case(
            "layer_norm",
            lambda x, weight, bias: F.layer_norm(x, (24,), weight, bias, eps=1e-6),
            moco_jax.layer_norm,
            {"x": 2 * normal(2, 5, 24) + 0.5, "weight": gain(24), "bias": normal(24)},
        ),
        Case(
            "batch_norm",
            lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5),
            lambda x, weight, bias: moco_jax.batch_norm(x, weight, bias)[0],
            {"x": 2 * normal(8, 12) + 0.5, "weight": gain(12), "bias": normal(12)},
        ),
        Case(
            "batch_norm_no_affine",
            lambda x: F.batch_norm(x, None, None, training=True, eps=1e-5),
            lambda x: moco_jax.batch_norm(x)[0],
            {"x": 2 * normal(8, 12) + 0.5},
        ),
        Case(
            "batch_norm_eval",
            lambda x, weight, bias, running_mean, running_var: F.batch_norm(
                x, running_mean, running_var, weight, bias, training=False, eps=1e-5
            ),
            batch_norm_eval_jax,
            {"x": normal(8, 12), "weight": gain(12), "bias": normal(12)},
            {"running_mean": mean, "running_var": var},
        ),
        Case("gelu", F.gelu, moco_jax.gelu, {"x": torch.cat([torch.linspace(-6, 6, 49), normal(15)]).reshape(4, 16)}),
        Case(
            "attention",
            attention_torch,
            lambda x, **p: moco_jax.attention(x, **p, heads=3),
            {
                "x": normal(2, 5, 24),
                "qkv_weight": normal(72, 24, std=0.35),
                "qkv_bias": normal(72, std=0.2),
                "proj_weight": normal(24, 24, std=0.2),
                "proj_bias": normal(24, std=0.2),
            },
        ),
        Case(
            "mlp",
            lambda x, fc1_weight, fc1_bias, fc2_weight, fc2_bias: F.linear(
                F.gelu(F.linear(x, fc1_weight, fc1_bias)), fc2_weight, fc2_bias
            ),
            moco_jax.mlp,
            {
                "x": normal(2, 5, 24),
                "fc1_weight": normal(96, 24, std=0.2),
                "fc1_bias": normal(96, std=0.2),
                "fc2_weight": normal(24, 96, std=0.1),
                "fc2_bias": normal(24, std=0.2),
            },
        ),
        Case(
            "patch_embed",
            lambda x, weight, bias: F.conv2d(x, weight, bias, stride=4).flatten(2).transpose(1, 2),
            moco_jax.patch_embed,
            {"x": normal(2, 3, 16, 16), "weight": normal(24, 3, 4, 4, std=0.15), "bias": normal(24, std=0.2)},
        ),
        Case(
            "l2_normalize",
            lambda x: F.normalize(x, dim=1, eps=1e-12),
            moco_jax.l2_normalize,
            {"x": normal(4, 16) * torch.tensor([[1.0], [1e-3], [30.0], [1.0]])},
        ),
        Case(
            "softmax_cross_entropy",
            lambda logits, labels: F.cross_entropy(logits, labels.long()),
            moco_jax.cross_entropy,
            {"logits": 3 * normal(6, 7)},
            {"labels": labels.int()},
        ),
        Case(
            "contrastive",  # Alg. 1 `ctr`, one direction, temperature .2; k gets no gradient
            lambda q, k: moco_torch.contrastive_loss(q, k, 0.2),
            lambda q, k: moco_jax.contrastive_loss(q, k, 0.2),
            {"q": normal(8, 16)},
            {"k": normal(8, 16)},
        ),
    ]
    out: dict[str, np.ndarray] = {}
    for case in cases:
        out |= case.build(g)

    for name in ["batch_norm", "batch_norm_no_affine"]:
        x = torch.from_numpy(out[f"{name}.x"])
        layer = torch.nn.BatchNorm1d(12)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
        layer(x)
        ours = moco_jax.running(numpy(mean), numpy(var), moco_jax.batch_norm(jnp.asarray(numpy(x)))[1], len(x))
        out |= {f"{name}.running_mean": numpy(mean), f"{name}.running_var": numpy(var)}
        for key, theirs, jax_value in zip(["mean", "var"], [layer.running_mean, layer.running_var], ours):
            agree(f"{name}.new_running_{key}", jax_value, theirs, 1e-6)
            out[f"{name}.new_running_{key}"] = numpy(theirs)

    out["position.4x4.table"] = numpy(moco_torch.position_table(4, 24).float())
    rows = torch.tensor([0, 1, 2, 14, 15, 28, 100, 183, 196])
    table = moco_torch.position_table(14, 384).float()
    agree("position.14x14", moco_jax.position_table(14, 384), table, 1e-5)
    agree("position.4x4", moco_jax.position_table(4, 24), out["position.4x4.table"], 1e-5)
    out |= {"position.14x14.index": numpy(rows.int()), "position.14x14.table": numpy(table[rows])}
    return out
