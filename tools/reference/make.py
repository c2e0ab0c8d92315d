"""Writes the fixtures of tests/fixtures/parity, all of them or those named.

    python tools/reference/make.py [--out DIR] [NAME]...

Deterministic: seeds are fixed, work is done on one thread. On another CPU or with other versions
than requirements.txt the last bits may differ.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import torch
from safetensors.numpy import save_file

import augment
import backbones_torch
import finetune_torch
import layers
import matrix_torch
import methods_torch
import optim
import optim_torch
import probe_torch
import rand_augment
import rectangles
import training

MAKERS = {
    "layers": layers.build,
    "vit": training.build_vit,
    "moco_step": training.build_moco_step,
    "methods": methods_torch.build,
    "backbones": backbones_torch.build,
    "resnet50": backbones_torch.build_resnet50,
    "matrix": matrix_torch.build,
    "adamw": optim.build_adamw,
    "lamb": optim_torch.build_lamb,
    "lars": optim_torch.build_lars,
    "sgd": optim_torch.build_sgd,
    "clip": optim_torch.build_clip,
    "probe": probe_torch.build,
    "schedules": optim.build_schedules,
    "augment": augment.build,
    "finetune": finetune_torch.build,
    "rand_augment": rand_augment.build,
    "rectangles": rectangles.build,
}


def main() -> None:
    repository = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=repository / "tests/fixtures/parity")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; all by default")
    args = parser.parse_args()
    unknown = set(args.names) - set(MAKERS)
    if unknown:
        parser.error(f"no such fixture: {', '.join(sorted(unknown))} (there are {', '.join(MAKERS)})")

    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or MAKERS:
        made = MAKERS[name]()
        if name in ("schedules", "rectangles"):
            path = args.out / f"{name}.json"
            path.write_text(json.dumps(made) + "\n")
        else:
            path = args.out / f"{name}.safetensors"
            save_file(made, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
