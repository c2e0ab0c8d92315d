"""augment.safetensors: torchvision's augmentation operations on float pictures in [0, 1].

A picture is u8 [H, W, 3]; it becomes f32 by dividing by 255, and stays f32 (clamped to [0, 1] by the
operations that can leave it) to the end. Pillow's integer path rounds to 1/255 after each operation
and is not the reference. Each operation is checked against its equation in NumPy f64.
"""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from common import numpy

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
FACTORS = {"brightness": [0.6, 1.0, 1.4], "contrast": [0.6, 1.0, 1.4], "saturation": [0.0, 0.8, 1.2]}
SHIFTS = [-0.1, -0.03, 0.05, 0.1, 0.5]
SIGMAS = [0.1, 0.7, 1.3, 2.0]
THRESHOLD = 128 / 255
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Order (first operation first) and factors (brightness, contrast, saturation, hue shift) of chains.
CHAINS = [
    ([BRIGHTNESS, CONTRAST, SATURATION, HUE], [1.35, 0.7, 1.15, 0.08]),
    ([HUE, SATURATION, CONTRAST, BRIGHTNESS], [0.65, 1.3, 0.85, -0.09]),
    ([CONTRAST, HUE, BRIGHTNESS, SATURATION], [1.2, 1.38, 1.19, -0.02]),
]
# Whole views: chain or None, grayscale, sigma or 0, solarize, flip.
VIEWS = [
    (0, False, 1.1, False, True),
    (1, True, 0.4, False, False),
    (None, False, 0.0, True, True),
    (2, False, 1.9, True, False),
]


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    """u8 [count, size, size, 3]: waves, an edge and noise, and corners of pure, gray and extreme colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    out = []
    for _ in range(count):
        channels = []
        for _ in range(3):
            fx, fy, phase = rng.uniform(1, 9, 2).tolist() + [rng.uniform(0, 6.3)]
            channels.append(128 + 70 * np.sin(6.3 * (fx * x + fy * y) + phase) + 40 * (x > rng.uniform(0.3, 0.7)))
        image = np.stack(channels, -1) + rng.normal(0, 12, (size, size, 3))
        image = image.clip(0, 255).round().astype(np.uint8)
        corner = [0, 128, 255]
        palette = np.array([[r, g, b] for r in corner for g in corner for b in corner], np.uint8)
        image[0, : len(palette)] = palette
        out.append(image)
    return np.stack(out)


def to_float(u8: np.ndarray) -> Tensor:
    """[N, H, W, 3] u8 -> [N, 3, H, W] f32."""
    return torch.from_numpy(u8).permute(0, 3, 1, 2).float() / 255


def nhwc(x: Tensor) -> np.ndarray:
    return numpy(x.permute(0, 2, 3, 1).contiguous())


def jitter_one(x: Tensor, operation: int, factor: float) -> Tensor:
    adjust = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    return adjust[operation](x, factor)


def blur(x: Tensor, kernel: int, sigma: float) -> Tensor:
    return tv.gaussian_blur(x, [kernel, kernel], [sigma, sigma])


def chain(x: Tensor, order: list[int], factors: list[float]) -> Tensor:
    for operation in order:
        x = jitter_one(x, operation, factors[operation])
    return x


def view(x: Tensor, which: int | None, gray: bool, sigma: float, solarize: bool, flip: bool, kernel: int) -> Tensor:
    """The order of the recipe: jitter, grayscale, blur, solarize, flip, normalise."""
    if which is not None:
        x = chain(x, *CHAINS[which])
    if gray:
        x = tv.rgb_to_grayscale(x, num_output_channels=3)
    if sigma > 0:
        x = blur(x, kernel, sigma)
    if solarize:
        x = tv.solarize(x, THRESHOLD)
    if flip:
        x = tv.horizontal_flip(x)
    return tv.normalize(x, MEAN, STD)


# ---------------------------------------------------------------- the equations, in NumPy f64


def luma(x: np.ndarray) -> np.ndarray:
    return (x * [0.2989, 0.587, 0.114]).sum(-1, keepdims=True)


def equation(x: np.ndarray, operation: int, factor: float) -> np.ndarray:
    """x [N, H, W, 3] f64; the first three blend with black, the mean gray, the pixel's gray."""
    if operation == HUE:
        flat = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
        return np.array([colorsys.hsv_to_rgb((h + factor) % 1, s, v) for h, s, v in flat]).reshape(x.shape)
    other = [0 * x, luma(x).mean((1, 2), keepdims=True), luma(x)][operation]
    return (factor * x + (1 - factor) * other).clip(0, 1)


def blur_equation(x: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
    offset = np.arange(kernel) - kernel // 2
    weights = np.exp(-0.5 * (offset / sigma) ** 2)
    weights /= weights.sum()
    for axis in [1, 2]:
        x = ndimage.correlate1d(x, weights, axis, mode="mirror")
    return x


def check(name: str, ours: np.ndarray, torchvision: np.ndarray) -> None:
    worst = np.abs(ours - torchvision).max()
    assert worst < 5e-6, f"{name}: torchvision is {worst:.1e} off the equation"


# ---------------------------------------------------------------- fixtures


def operations(u8: np.ndarray, kernel: int) -> dict[str, np.ndarray]:
    """All operations on `u8` [N, H, W, 3]; `kernel` is the blur's size."""
    x = to_float(u8)
    x64 = u8.astype(np.float64) / 255
    f32 = lambda values: np.array(values, np.float32)
    out = {"picture": u8}

    for operation, (name, factors) in enumerate((FACTORS | {"hue": SHIFTS}).items()):
        y = np.stack([nhwc(jitter_one(x, operation, f)) for f in factors])
        for i, f in enumerate(factors):
            check(f"{name} {f}", equation(x64, operation, f), y[i])
        out |= {f"{name}.factor": f32(factors), f"{name}.y": y}

    y = np.stack([nhwc(blur(x, kernel, s)) for s in SIGMAS])
    for i, s in enumerate(SIGMAS):
        check(f"blur {s}", blur_equation(x64, kernel, s), y[i])
    out |= {"blur.kernel": np.array(kernel, np.int32), "blur.sigma": f32(SIGMAS), "blur.y": y}

    out["grayscale.y"] = nhwc(tv.rgb_to_grayscale(x, num_output_channels=3))
    check("grayscale", np.broadcast_to(luma(x64), x64.shape), out["grayscale.y"])
    out["solarize.y"] = nhwc(tv.solarize(x, THRESHOLD))
    check("solarize", np.where(u8 >= 128, 1 - x64, x64), out["solarize.y"])
    out["flip.y"] = nhwc(tv.horizontal_flip(x))
    check("flip", x64[:, :, ::-1], out["flip.y"])
    out["normalize.y"] = nhwc(tv.normalize(x, MEAN, STD))
    check("normalize", (x64 - MEAN) / STD, out["normalize.y"])

    out["chain.order"] = np.array([order for order, _ in CHAINS], np.int32)
    out["chain.factor"] = f32([factors for _, factors in CHAINS])
    out["chain.y"] = np.stack([nhwc(chain(x, *c)) for c in CHAINS])
    for i, (order, factors) in enumerate(CHAINS):
        y64 = x64
        for operation in order:
            y64 = equation(y64, operation, factors[operation])
        check(f"chain {i}", y64, out["chain.y"][i])

    flags = lambda column: np.array([int(bool(v[column])) for v in VIEWS], np.int32)
    which = [v[0] for v in VIEWS]
    out |= {
        "view.jitter": np.array([int(w is not None) for w in which], np.int32),
        "view.order": np.array([CHAINS[w or 0][0] for w in which], np.int32),
        "view.factor": f32([CHAINS[w or 0][1] for w in which]),
        "view.grayscale": flags(1),
        "view.sigma": f32([v[2] for v in VIEWS]),
        "view.solarize": flags(3),
        "view.flip": flags(4),
        "view.y": np.stack([nhwc(view(x, *v, kernel)) for v in VIEWS]),
    }
    return out


def build() -> dict[str, np.ndarray]:
    out = operations(pictures(2, 32, 5), kernel=3)
    wide = pictures(1, 64, 6)
    y = np.stack([nhwc(blur(to_float(wide), 23, s)) for s in SIGMAS])
    for i, s in enumerate(SIGMAS):
        check(f"wide blur {s}", blur_equation(wide / 255.0, 23, s), y[i])
    return out | {
        "blur_wide.picture": wide,
        "blur_wide.kernel": np.array(23, np.int32),
        "blur_wide.sigma": np.array(SIGMAS, np.float32),
        "blur_wide.y": y,
    }
