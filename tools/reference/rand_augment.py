"""rand_augment.safetensors: every operation of timm's "increasing" RandAugment by Pillow, fixed draws.

Names are ours, in the order of `Operation::ALL`; a picture's bytes stand as i32, four in one.
"""

from __future__ import annotations

import random
from unittest import mock

import numpy as np
from PIL import Image
from timm.data import auto_augment

SIDE, FILL = 20, (124, 116, 104)
# Magnitude, and what timm's coin shows: above .5 it negates.
DRAWS = [(9.0, 0.1), (9.0, 0.9), (4.3, 0.1), (4.3, 0.9), (10.0, 0.1)]
OPERATIONS = [
    "AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd",
    "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "ShearX", "ShearY",
    "TranslateXRel", "TranslateYRel",
]  # fmt: skip


def picture() -> np.ndarray:
    """Waves, a dark and a bright corner, some noise; channels of different ranges."""
    rng = np.random.default_rng(23)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(4 * x - 8 * y), np.sin(7 * x * y)], axis=-1)
    picture = 118 + waves * [70, 95, 40] + rng.normal(0, 12, (SIDE, SIDE, 3))
    picture[:4, :4] -= 90
    picture[-3:, -5:] += 80
    return picture.clip(6, 251).astype(np.uint8)


def packed(picture: np.ndarray) -> np.ndarray:
    return np.frombuffer(picture.tobytes(), np.int32).copy()


def build() -> dict[str, np.ndarray]:
    image = Image.fromarray(picture())
    # DeiT's setting: rectangles are filled with the mean, pictures sampled by cubics.
    assert set(OPERATIONS) == set(auto_augment._RAND_INCREASING_TRANSFORMS)
    settings = dict(fillcolor=FILL, resample=Image.Resampling.BICUBIC)
    out = {"picture": packed(np.asarray(image))}
    for index, name in enumerate(OPERATIONS):
        level = auto_augment.LEVEL_TO_ARG[name]
        for magnitude, coin in DRAWS:
            # Pillow refuses to keep no bit at all.
            if name == "PosterizeIncreasing" and magnitude == 10:
                continue
            with mock.patch.object(random, "random", lambda: coin):
                args = level(magnitude, dict(translate_pct=0.45)) if level else ()
            changed = auto_augment.NAME_TO_OP[name](image, *args, **settings)
            out[f"{index}.{magnitude}.{int(coin > 0.5)}"] = packed(np.asarray(changed))
    return out
