"""An equivalent MoCo v3 training step in JAX, to be timed against ours on the same PJRT plugin.

    python tools/bench_jax.py --preset vit_micro --out DIR           # lower, and write inputs
    python tools/bench_jax.py --preset vit_micro --time 20           # JAX's own jit and CPU client
    python tools/bench_jax.py --preset vit_b16 --batch 256 --compute bfloat16 --device gpu --time 20

The step is that of tools/reference/moco_jax.py (the one that the parity fixtures were checked with):
both encoders on both views, loss, gradients, AdamW and the moving average, with the state donated;
no augmentation, no monitors. DIR gets

- `step.mlir`       StableHLO text; donated arguments carry `tf.aliasing_output`
- `signature.json`  {"inputs": [{"name", "dtype", "shape"}], "outputs": [...], "config": {...}},
                    in the order of the module's arguments and results
- `inputs.safetensors`  one value for every input, by name

Any PJRT client can run these: compile `step.mlir` with one replica and one partition, pass the
inputs in order, feed the first outputs (all but `loss`, same names and order as the first inputs)
back. Run tools/run_exported.py on DIR for one step on JAX's client.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path

# JAX looks at this when it is imported.
ON_GPU = any(a == "gpu" and b == "--device" for b, a in zip(sys.argv, sys.argv[1:])) or "--device=gpu" in sys.argv
os.environ.setdefault("JAX_PLATFORMS", "cuda" if ON_GPU else "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent / "reference"))

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import moco_jax
from moco_jax import Config

# Name: the model and the batch (pictures a view).
PRESETS = {
    "vit_micro": (Config(blocks=4, dim=128, heads=4, patch=8, image=32, hidden=512, out=128), 128),
    "vit_s16_64px": (Config(blocks=12, dim=384, heads=12, patch=16, image=64, hidden=4096, out=256), 16),
    "vit_s16": (Config(blocks=12, dim=384, heads=12, patch=16, image=224, hidden=4096, out=256), 256),
    "vit_b16": (Config(blocks=12, dim=768, heads=12, patch=16, image=224, hidden=4096, out=256), 256),
}


def parameters(config: Config, seed: int = 0) -> moco_jax.Arrays:
    """All parameters and BN buffers, initialised as the recipe says, f32."""
    rng = np.random.default_rng(seed)
    d, patch = config.dim, config.patch
    uniform = lambda shape, bound: rng.uniform(-bound, bound, shape).astype(np.float32)
    zeros, ones = (lambda *s: np.zeros(s, np.float32)), (lambda *s: np.ones(s, np.float32))

    encoder = {
        "cls_token": (1e-6 * rng.standard_normal((1, 1, d))).astype(np.float32),
        "pos_embed": np.asarray(moco_jax.position_table(config.image // patch, d), np.float32)[None],
        "patch_embed.proj.weight": uniform((d, 3, patch, patch), (6 / (3 * patch**2 + d)) ** 0.5),
        "patch_embed.proj.bias": zeros(d),
    }
    wide = config.mlp_ratio * d
    for i in range(config.blocks):
        for name, fan_out, fan_in, seen in [
            ("attn.qkv", 3 * d, d, d),  # Q, K and V each by itself
            ("attn.proj", d, d, d),
            ("mlp.fc1", wide, d, wide),
            ("mlp.fc2", d, wide, d),
        ]:
            encoder[f"blocks.{i}.{name}.weight"] = uniform((fan_out, fan_in), (6 / (fan_in + seen)) ** 0.5)
            encoder[f"blocks.{i}.{name}.bias"] = zeros(fan_out)
    for norm in ["norm"] + [f"blocks.{i}.norm{n}" for i in range(config.blocks) for n in (1, 2)]:
        encoder |= {f"{norm}.weight": ones(d), f"{norm}.bias": zeros(d)}

    def mlp(prefix: str, sizes: list[int]) -> dict:
        out = {}
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
            bn = f"{prefix}{3 * i + 1}"
            out[f"{prefix}{3 * i}.weight"] = uniform((fan_out, fan_in), fan_in**-0.5)
            if i < len(sizes) - 2:
                out |= {f"{bn}.weight": ones(fan_out), f"{bn}.bias": zeros(fan_out)}
            out |= {f"{bn}.running_mean": zeros(fan_out), f"{bn}.running_var": ones(fan_out)}
        return out

    encoder |= mlp("head.", [d, config.hidden, config.hidden, config.out])
    both = {f"{e}.{k}": v for e in ("base_encoder", "momentum_encoder") for k, v in encoder.items()}
    return both | mlp("predictor.", [config.out, config.hidden, config.out])


def arguments(config: Config, batch: int, seed: int = 0) -> tuple:
    """(state, x1, x2, lr, m) as NumPy arrays; pictures are noise around a colour of their own."""
    rng = np.random.default_rng(seed + 1)
    colour = rng.standard_normal((batch, 3, 1, 1))
    view = lambda: (colour + 0.5 * rng.standard_normal((batch, 3, config.image, config.image))).astype(np.float32)
    state = jax.tree.map(np.asarray, moco_jax.init_state(parameters(config, seed)))
    return state, view(), view(), np.array(1e-3, np.float32), np.array(0.99, np.float32)


def jitted(config: Config):
    """The step with its state donated; every argument stays an argument of the module."""

    def step(state, x1, x2, lr, m):
        return moco_jax.step(state, x1, x2, lr, m, config)

    return jax.jit(step, donate_argnums=0, keep_unused=True)


DTYPES = {"float32": "f32", "bfloat16": "bf16", "int32": "i32"}


def named(tree: dict) -> dict:
    """Leaves by dotted path, in the order in which JAX flattens them."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def named_arguments(args: tuple) -> dict:
    """All arguments by name, in the module's order."""
    state, *rest = args
    return named(state) | dict(zip(["x1", "x2", "lr", "m"], rest, strict=True))


def specs(tensors: dict) -> list[dict]:
    return [{"name": k, "dtype": DTYPES[str(v.dtype)], "shape": list(v.shape)} for k, v in tensors.items()]


def lower(config: Config, args: tuple) -> tuple[str, dict]:
    """StableHLO text of the step on `arguments` (only their shapes matter), and its signature."""
    state, x1, _, lr, _ = args
    text = jitted(config).lower(*args).as_text()
    signature = {
        "inputs": specs(named_arguments(args)),
        "outputs": specs(named(state) | {"loss": lr}),
        "config": dataclasses.asdict(config) | {"batch": len(x1)},
    }
    return text, signature


def write(config: Config, batch: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    args = arguments(config, batch)
    text, signature = lower(config, args)
    (out / "step.mlir").write_text(text)
    (out / "signature.json").write_text(json.dumps(signature, indent=1) + "\n")
    save_file(named_arguments(args), out / "inputs.safetensors")
    print(
        f"{out}: step.mlir ({len(text)} bytes), signature.json ({len(signature['inputs'])} inputs), inputs.safetensors"
    )


def measure(config: Config, batch: int, steps: int) -> None:
    """Prints one JSON object: compile seconds, milliseconds of each step and their median, losses."""
    state, *rest = jax.tree.map(jnp.asarray, arguments(config, batch))
    begin = time.perf_counter()
    step = jitted(config).lower(state, *rest).compile()
    compiled = time.perf_counter() - begin
    times, losses = [], []
    for i in range(steps + 2):  # two to warm up
        begin = time.perf_counter()
        state, loss = jax.block_until_ready(step(state, *rest))
        if i >= 2:
            times.append(1e3 * (time.perf_counter() - begin))
        losses.append(float(loss))
    print(
        json.dumps(
            {
                "jax": jax.__version__,
                "device": jax.devices()[0].device_kind,
                "config": dataclasses.asdict(config) | {"batch": batch},
                "compile_s": round(compiled, 2),
                "median_ms": round(statistics.median(times), 2),
                "images_per_second": round(1e3 * batch / statistics.median(times), 1),
                "step_ms": [round(t, 2) for t in times],
                "loss": losses,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="vit_micro")
    for field in ["blocks", "dim", "heads", "patch", "image", "hidden", "out"]:
        flag = "--out-dim" if field == "out" else f"--{field}"
        parser.add_argument(flag, dest=f"model_{field}", type=int, metavar="N", help=f"instead of the preset's {field}")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures a view, instead of the preset's")
    parser.add_argument("--compute", choices=["float32", "bfloat16"], default="float32", help="masters stay f32")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="where --time runs")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="DIR", help="write the lowered step and its inputs")
    action.add_argument("--time", type=int, metavar="STEPS", help="time so many steps of JAX's own jit")
    args = parser.parse_args()

    config, batch = PRESETS[args.preset]
    given = {k[len("model_") :]: v for k, v in vars(args).items() if k.startswith("model_") and v is not None}
    config = dataclasses.replace(config, compute=args.compute, **given)
    batch = args.batch if args.batch is not None else batch
    if config.dim % config.heads or config.dim % 4:
        parser.error(f"dim {config.dim} must be a multiple of 4 and of heads {config.heads}")
    if config.image % config.patch:
        parser.error(f"image {config.image} is not a multiple of patch {config.patch}")
    if args.out:
        write(config, batch, args.out)
    else:
        measure(config, batch, args.time)


if __name__ == "__main__":
    main()
