#!/usr/bin/env python3
"""Reference values for tests/data.rs, from Pillow and NumPy.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pillow numpy
    /tmp/venv/bin/python tools/fixtures_data.py [--photos FOLDER]

Without an option: makes the small pictures of tests/fixtures/data and what
Pillow decodes and resizes them to. With --photos: writes what Pillow makes of
the photographs in FOLDER to target/fixtures/photos (not committed; the test
that reads it skips where it is absent).

torchvision's resized_crop with antialiased bilinear resizing is, on Pillow
pictures, exactly crop() and then resize(BILINEAR); so that is used here.
"""

import argparse
import io
import json
import pathlib
import shutil

import numpy as np
from PIL import Image, ImageOps, ImageDraw

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXIF_ORIENTATION = 0x0112


class Writer:
    """Files, and expected RGB arrays one after another in expected.bin."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = []
        self.pixels = bytearray()

    def expect(self, file, rgb, **what):
        rgb = np.asarray(rgb, np.uint8)
        height, width, channels = rgb.shape
        assert channels == 3
        case = {"file": file, **what, "width": width, "height": height, "offset": len(self.pixels)}
        self.cases.append(case)
        self.pixels += rgb.tobytes()

    def close(self):
        (self.folder / "expected.bin").write_bytes(self.pixels)
        lines = ",\n".join("  " + json.dumps(case) for case in self.cases)
        (self.folder / "cases.json").write_text(f"[\n{lines}\n]\n")


def drawn_picture(width, height, seed):
    """Gradients, edges, fine detail and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        127 + 120 * np.sin(x / 9.0 + seed),
        255.0 * y / height,
        127 + 120 * np.cos((x + y) / 13.0),
    ]
    array = np.stack(planes, -1) + rng.normal(0, 6, (height, width, 3))
    image = Image.fromarray(array.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x0, y0 = rng.integers(0, width), rng.integers(0, height)
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.ellipse([x0, y0, x0 + width // 5, y0 + height // 4], fill=colour)
        draw.line([x0, 0, y0, height], fill=colour)
    return image


def decode_cases(out):
    rgb = drawn_picture(45, 34, 1)
    gray = rgb.convert("L")
    rgba = rgb.convert("RGBA")
    rgba.putalpha(gray)
    saved = {
        "baseline_420.jpg": (rgb, dict(quality=90, subsampling=2)),
        "baseline_444.jpg": (rgb, dict(quality=90, subsampling=0)),
        "progressive.jpg": (rgb, dict(quality=90, progressive=True)),
        "gray.jpg": (gray, dict(quality=90)),
        "cmyk.jpg": (rgb.convert("CMYK"), dict(quality=95)),
        "rgb.png": (rgb, {}),
        "palette.png": (rgb.quantize(32), {}),
        "rgba.png": (rgba, {}),
        "gray.png": (gray, {}),
        "bilevel.png": (rgb.convert("1"), {}),
        "lossy.webp": (rgb, dict(quality=90)),
        "lossless.webp": (rgba, dict(lossless=True)),
    }
    for name, (image, options) in saved.items():
        image.save(out.folder / name, **options)
        out.expect(name, Image.open(out.folder / name).convert("RGB"), kind="decode")

    # Pillow clips 16-bit grey instead of scaling it; the value is defined as
    # v * 255 / 65535, so NumPy says it.
    wide = np.linspace(0, 65535, 45 * 34).round().astype(np.uint16).reshape(34, 45)
    Image.fromarray(wide).save(out.folder / "gray16.png")
    narrow = (wide / 257.0).round().astype(np.uint8)
    out.expect("gray16.png", np.repeat(narrow[..., None], 3, -1), kind="decode")


def exif_cases(out):
    image = drawn_picture(24, 16, 2)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        name = f"exif_{orientation}.jpg"
        image.save(out.folder / name, quality=95, subsampling=0, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(out.folder / name))
        out.expect(name, upright.convert("RGB"), kind="decode")
    out.expect("exif_6.jpg", Image.open(out.folder / "exif_6.jpg").convert("RGB"), kind="raw")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    for name, options in [("exif_6.png", {}), ("exif_6.webp", dict(lossless=True))]:
        image.save(out.folder / name, exif=exif, **options)
        upright = ImageOps.exif_transpose(Image.open(out.folder / name))
        out.expect(name, upright.convert("RGB"), kind="decode")


def crop_expected(image, box, px):
    x, y, width, height = box
    part = image.crop((x, y, x + width, y + height))
    return part.resize((px, px), Image.Resampling.BILINEAR)


def central_expected(image, px):
    """torchvision's Resize(px * 256 / 224) and CenterCrop(px)."""
    width, height = image.size
    short = round(px * 256 / 224)
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left = int(round((size[0] - px) / 2.0))
    top = int(round((size[1] - px) / 2.0))
    return resized.crop((left, top, left + px, top + px))


def resize_cases(out):
    source = drawn_picture(96, 70, 3)
    source.save(out.folder / "resize.png")
    source.save(out.folder / "resize.jpg", quality=92, subsampling=2)
    boxes = [(0, 0, 96, 70), (11, 7, 60, 50), (40, 20, 13, 17), (3, 60, 80, 9)]
    for file in ["resize.png", "resize.jpg"]:
        image = Image.open(out.folder / file).convert("RGB")
        for box, px in zip(boxes, [32, 24, 40, 24]):
            out.expect(file, crop_expected(image, box, px), kind="crop", box=box)
        for px in [32, 48]:
            out.expect(file, central_expected(image, px), kind="central")


def photo_cases(out, photos):
    """Every photograph: one crop and the evaluation view, both at 96 px."""
    rng = np.random.default_rng(0)
    for path in sorted(photos.iterdir()):
        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        width, height = image.size
        w, h = int(rng.integers(width // 4, width + 1)), int(rng.integers(height // 4, height + 1))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        out.expect(path.name, crop_expected(image, (x, y, w, h), 96), kind="crop", box=[x, y, w, h])
        out.expect(path.name, central_expected(image, 96), kind="central")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=pathlib.Path, metavar="FOLDER")
    photos = parser.parse_args().photos
    folder = ROOT / ("target/fixtures/photos" if photos else "tests/fixtures/data")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = Writer(folder)
    if photos:
        photo_cases(out, photos)
    else:
        decode_cases(out)
        exif_cases(out)
        resize_cases(out)
    out.close()


if __name__ == "__main__":
    main()
