"""rectangles.json: where torchvision's CutMix and timm's random erasing put their rectangles, the draws given.

timm of today makes the rectangle of an odd length a pixel longer than the paper's own code, torchvision and the timm
of DeiT do.
"""

from __future__ import annotations

import random
from unittest import mock

import torch
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import v2

# Side, share of the batch's own pictures, centre.
CUTS = [
    (32, 0.5, (16, 16)),
    (32, 0.83, (0, 31)),
    (33, 0.1, (5, 20)),
    (224, 0.97, (223, 100)),
    (224, 0.0, (112, 113)),
    (16, 1.0, (3, 4)),
]
# Side, share of the area, logarithm of height over width, where in what is left.
ERASED = [
    (224, 0.02, 0.0, (0.5, 0.5)),
    (224, 0.3, 1.2, (0.0, 1.0)),
    (224, 1 / 3, -1.2, (1.0, 0.0)),
    (32, 0.15, 0.4, (0.3, 0.9)),
    (31, 0.027, -1.1, (0.99, 0.01)),
    # Higher than the picture.
    (32, 0.33, 1.203, (0.5, 0.5)),
]


def cut(side: int, share: float, centre: tuple[int, int]) -> dict:
    mixing = v2.CutMix(num_classes=2)
    mixing._dist = mock.Mock(sample=lambda _: share)
    across_then_down = [torch.tensor([at]) for at in reversed(centre)]
    with mock.patch.object(torch, "randint", side_effect=across_then_down):
        made = mixing.make_params([torch.zeros(1, 3, side, side)])
    left, top, right, bottom = made["box"]
    return dict(side=side, share=share, centre=centre, box=[top, bottom, left, right], left=made["lam_adjusted"])


def erased(side: int, area: float, log_ratio: float, where: tuple[float, float]) -> dict:
    eraser = RandomErasing(probability=1, min_area=0.02, max_area=1 / 3, min_aspect=0.3, mode="const", device="cpu")
    places = iter(where)

    def uniform(low: float, high: float) -> float:
        return area if low > 0 else log_ratio

    with (
        mock.patch.object(random, "random", return_value=0.0),
        mock.patch.object(random, "uniform", side_effect=uniform),
        mock.patch.object(random, "randint", side_effect=lambda low, high: low + int((high - low) * next(places))),
    ):
        picture = eraser(torch.ones(3, side, side))
    lines, columns = (torch.nonzero((picture == 0).all(0).any(axis)).flatten() for axis in (1, 0))
    box = [int(lines[0]), int(lines[-1]) + 1, int(columns[0]), int(columns[-1]) + 1] if len(lines) else None
    return dict(side=side, area=area, log_ratio=log_ratio, box=box)


def build() -> dict:
    return dict(cut=[cut(*case) for case in CUTS], erased=[erased(*case) for case in ERASED])
