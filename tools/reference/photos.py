"""Writes expected outputs on real photographs, for the optional tests that have them.

    python tools/reference/photos.py PHOTOS OUT

PHOTOS is a folder of JPEG files; the first six by name are used. OUT gets

- `operations.safetensors`: the keys of augment.safetensors, on the pictures resized to 64x64 (`picture`);
- `resize.safetensors`: `decoded.<i>` u8 [H, W, 3] as Pillow decodes it (EXIF orientation not applied),
  `box.<i>` i32 [3, 4] (left, top, width, height), `size` i32, and `resized.<i>` u8 [3, size, size, 3]:
  each box cut out, then resized by Pillow, bilinear with antialias.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

import augment

COUNT, SIZE, KERNEL = 6, 64, 7


def boxes(width: int, height: int) -> list[list[int]]:
    """The whole picture, a wide part that is shrunk, and a small part that is enlarged."""
    return [
        [0, 0, width, height],
        [width // 8, height // 5, width // 2 + 1, height // 3 + 1],
        [width // 3, height // 4, 41, 37],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    paths = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in {".jpg", ".jpeg"})[:COUNT]
    if len(paths) < COUNT:
        parser.error(f"{args.photos} holds {len(paths)} JPEG files, {COUNT} are needed")

    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    small, resize = [], {"size": np.array(SIZE, np.int32)}
    for i, path in enumerate(paths):
        picture = Image.open(path).convert("RGB")
        cuts = boxes(*picture.size)
        resized = [
            np.asarray(picture.crop((x, y, x + w, y + h)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
            for x, y, w, h in cuts
        ]
        small.append(resized[0])
        resize |= {
            f"decoded.{i}": np.asarray(picture),
            f"box.{i}": np.array(cuts, np.int32),
            f"resized.{i}": np.stack(resized),
        }
    names = {str(i): path.name for i, path in enumerate(paths)}
    save_file(augment.operations(np.stack(small), KERNEL), args.out / "operations.safetensors", names)
    save_file(resize, args.out / "resize.safetensors", names)
    print(f"{args.out}: operations.safetensors, resize.safetensors from {', '.join(names.values())}")


if __name__ == "__main__":
    main()
