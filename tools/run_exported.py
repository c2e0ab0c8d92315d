"""Runs an exported StableHLO program with JAX's own CPU client: an independent check of an export.

    xla-moco export --config configs/quickstart.json --format stablehlo --out step.mlir --arguments step.safetensors
    python tools/run_exported.py step.mlir --inputs FILE_OR_DIR... [--signature FILE] [--out FILE]

The program is StableHLO text for one device. Its signature is JSON, by default `step.signature.json`,
`step.json` or `signature.json` beside `step.mlir`:

    {"inputs": [{"name", "dtype", "shape"}], "outputs": [{"name", "dtype", "shape"}]}

in the order of the module's arguments and results; dtypes are MLIR's (f32, bf16, i32, ui8 or u8, i1).
Inputs are looked up by name in safetensors files, a folder standing for all of those in it. Every
output is printed on a line of its own, a small one with its values, others with their mean and norm;
`--out` writes them all as safetensors.

Needs jax, numpy and safetensors (tools/reference/requirements.txt). Exit code 2: bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_enable_x64", True)  # or 64-bit inputs would be narrowed

import ml_dtypes
import numpy as np
from jax.extend import backend
from jaxlib import xla_client
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

DTYPES = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i1": np.bool_,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
}  # fmt: skip


class BadInput(Exception):
    """What the caller can mend."""


def dtype(name: str) -> np.dtype:
    key = {"bool": "i1", "pred": "i1"}.get(name.lower(), name.lower().removeprefix("ui"))
    key = f"u{key}" if name.lower().startswith("ui") else key
    if key not in DTYPES:
        raise BadInput(f"the signature names the dtype {name!r}; known are {', '.join(DTYPES)}")
    return np.dtype(DTYPES[key])


def read_signature(program: Path, given: Path | None) -> dict:
    beside = [program.with_suffix(".signature.json"), program.with_suffix(".json"), program.with_name("signature.json")]
    candidates = [given] if given else beside
    for path in candidates:
        if path.is_file():
            signature = json.loads(path.read_text())
            if not {"inputs", "outputs"} <= signature.keys():
                raise BadInput(f"{path} has no `inputs` and `outputs`")
            return signature
    raise BadInput(f"no signature: looked for {', '.join(map(str, candidates))}; name it with --signature")


def kind(array_dtype: np.dtype, shape: tuple) -> str:
    """Dtype and shape as messages and listings show them."""
    return f"{array_dtype}{list(shape)}"


def read_inputs(specs: list[dict], paths: list[Path]) -> list[np.ndarray]:
    """The tensors of `specs`, in their order, checked against dtype and shape."""
    files = [f for p in paths for f in (sorted(p.glob("*.safetensors")) if p.is_dir() else [p])]
    where, handles = {}, {}
    for file in files:
        try:
            handles[file] = safe_open(file, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{file} is no readable safetensors file: {error}") from error
        for name in handles[file].keys():
            if where.setdefault(name, file) != file:
                raise BadInput(f"{name} stands in both {where[name]} and {file}")
    missing = [s["name"] for s in specs if s["name"] not in where]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(specs)} inputs are in none of {len(files)} files: {', '.join(missing[:8])}"
        )
    values = []
    for spec in specs:
        name, want = spec["name"], kind(dtype(spec["dtype"]), tuple(spec["shape"]))
        value = handles[where[name]].get_tensor(name)
        if (found := kind(value.dtype, value.shape)) != want:
            raise BadInput(f"{name}: the program takes {want}, {where[name]} has {found}")
        values.append(value)
    return values


def execute(text: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Compiles StableHLO text for one CPU device and runs it once."""
    if (found := re.search(r"mhlo\.num_partitions\s*=\s*(\d+)", text)) and found[1] != "1":
        raise BadInput(f"the program is for {found[1]} devices; export it for one")
    client = backend.get_backend("cpu")
    device = client.local_devices()[0]
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.executable_build_options.use_shardy_partitioner = True
    try:
        loaded = client.compile_and_load(text, xla_client.DeviceList((device,)), options)
    except jax.errors.JaxRuntimeError as error:
        raise BadInput(f"jax {jax.__version__} does not compile the program: {error}") from error
    results = loaded.execute_sharded([jax.device_put(value, device) for value in inputs])
    return [np.asarray(shards[0]) for shards in results.disassemble_into_single_device_arrays()]


def run(program: Path, signature: dict, inputs: list[Path]) -> dict[str, np.ndarray]:
    outputs = execute(program.read_text(), read_inputs(signature["inputs"], inputs))
    specs = signature["outputs"]
    if len(outputs) != len(specs):
        raise BadInput(f"the program returns {len(outputs)} values, the signature lists {len(specs)}")
    for spec, value in zip(specs, outputs):
        want = kind(dtype(spec["dtype"]), tuple(spec["shape"]))
        if (found := kind(value.dtype, value.shape)) != want:
            raise BadInput(f"{spec['name']}: the signature says {want}, the program returns {found}")
    return {spec["name"]: value for spec, value in zip(specs, outputs)}


def describe(value: np.ndarray) -> str:
    if value.shape == ():
        return f"{value.item()!r}"
    if not value.size:
        return "empty"
    if value.size <= 8:
        return f"{value.tolist()!r}"
    wide = value.astype(np.float64)
    return f"mean {wide.mean():.6g} norm {np.linalg.norm(wide):.6g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("--signature", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        outputs = run(args.program, read_signature(args.program, args.signature), args.inputs)
    except (BadInput, OSError, json.JSONDecodeError) as error:
        print(f"run_exported: {error}", file=sys.stderr)
        sys.exit(2)
    for name, value in outputs.items():
        print(f"{name}: {kind(value.dtype, value.shape)} {describe(value)}")
    if args.out:
        save_file(outputs, args.out)


if __name__ == "__main__":
    main()
