"""How JAX writes cuDNN's attention and its gradient for a GPU: tests/fixtures/attention_cudnn.json.

    python tools/reference/attention_cudnn.py

Needs no GPU: the program is lowered for CUDA and not compiled. JAX asks the library whether it takes
the shapes; that is answered here, since there is none.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax._src.cudnn.fused_attention_stablehlo as fused
import jax.numpy as jnp
from jax import export

FILE = Path(__file__).resolve().parents[2] / "tests/fixtures/attention_cudnn.json"
TARGETS = ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
# [B, T, heads, width]: ViT-B's, ViT-S's, and a small one.
SHAPES = [(4, 197, 12, 64), (2, 197, 12, 32), (3, 17, 2, 16)]


def lowered(shape: tuple[int, ...]) -> str:
    def both(q, k, v, ct):
        attend = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
        y, pull_back = jax.vjp(attend, q, k, v)
        return y, *pull_back(ct)

    fused.check_cudnn_version = lambda: 92000
    fused.check_compute_capability = lambda *args: True
    fused.check_is_flash_attention = lambda *args, **kwargs: None
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    unchecked = [export.DisabledSafetyCheck.custom_call(target) for target in TARGETS]
    return str(export.export(jax.jit(both), platforms=["cuda"], disabled_checks=unchecked)(x, x, x, x).mlir_module())


def call(text: str, target: str) -> dict:
    """What is written beside the operands of a call."""
    line = next(line for line in text.splitlines() if f"@{target}(" in line)
    config = re.search(r'backend_config = "((?:[^"\\]|\\.)*)"', line)[1].replace("\\22", '"')
    layouts = lambda key: re.search(rf"{key} = (\[.*?\])(?:, |\}})(?=result_layouts|\s*:)", line)[1]
    operands, results = re.search(r"\} : \((.*?)\) -> \((.*?)\) loc", line).groups()
    return {
        "api_version": re.search(r"api_version = (\d+ : i32)", line)[1],
        "backend_config": json.loads(config),
        "operand_layouts": layouts("operand_layouts"),
        "result_layouts": layouts("result_layouts"),
        "operands": operands,
        "results": results,
    }


def main() -> None:
    cases = []
    for shape in SHAPES:
        text = lowered(shape)
        cases.append({"shape": shape} | {target: call(text, target) for target in TARGETS})
    FILE.write_text(json.dumps({"jax": jax.__version__, "cases": cases}, indent=1) + "\n")
    print(f"{FILE}: {len(cases)} shapes")


if __name__ == "__main__":
    main()
