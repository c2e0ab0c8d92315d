"""Checks `xla-moco convert` against the tools it converts from and to.

    pip install torch torchvision timm transformers onnx onnxruntime safetensors
    python tools/reference/convert_check.py check --binary target/release/xla-moco
    python tools/reference/convert_check.py fixtures

`check` makes random weights in the authors' exact layout (ViT-S with 12 heads,
ResNet-50), converts them, loads each result in its own tool and compares the
features with those of the model that the weights were made in, and with the
parity vector. `fixtures` writes the small files of tests/fixtures/convert.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
TOLERANCE = 1e-5
ROOT = Path(__file__).resolve().parents[2]


def pictures(side):
    """The parity pictures, u8 [2, side, side, 3], by the formula of docs/convert.md."""
    k = np.arange(1, 2 * side * side * 3 + 1, dtype=np.uint64)
    return ((k * 2654435761 % 2**32) >> 24).astype(np.uint8).reshape(2, side, side, 3)


def normalised(side):
    x = torch.from_numpy(pictures(side)).permute(0, 3, 1, 2).float() / 255
    return (x - MEAN) / STD


def randomise(model, seed):
    """Every tensor random, so that none can be left out or swapped unseen."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=draw)
        fan_in = value[0].numel() if value.dim() > 1 else 1
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(noise.abs() + 0.5)
            elif value.dim() > 1 and name.split(".")[-1] not in ("cls_token", "pos_embed"):
                value.copy_(noise * fan_in**-0.5)
            elif name.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            else:
                value.copy_(0.1 * noise)
    return model.eval()


def mlp(widths, last_norm=True):
    """The heads of the public code: linear, BN, ReLU; the last BN has no affine parameters."""
    layers = []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        layers.append(nn.Linear(inputs, outputs, bias=False))
        if i + 2 < len(widths):
            layers += [nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
        elif last_norm:
            layers.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*layers)


def vit(dim, heads, depth, patch, side, **more):
    return timm.models.vision_transformer.VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads,
        num_classes=0, **more)


class MoCo(nn.Module):
    def __init__(self, make, head, projector, predictor):
        super().__init__()
        self.base_encoder, self.momentum_encoder = make(), make()
        for encoder in (self.base_encoder, self.momentum_encoder):
            setattr(encoder, head, projector())
        self.predictor = predictor()


def save_like_the_authors(path, model, arch, **more):
    """`{epoch, arch, state_dict, optimizer, scaler}`, under DataParallel's prefix."""
    optimizer = torch.optim.AdamW(model.predictor.parameters(), 1e-4)
    for parameter in model.predictor.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = model.state_dict()
    prefixed = type(state)((f"module.{name}", value) for name, value in state.items())
    prefixed._metadata = state._metadata
    torch.save({
        "epoch": 300, "arch": arch, "state_dict": prefixed, "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
    }, path, **more)


@torch.no_grad()
def features(backbone, x):
    y = backbone(x)
    return y.last_hidden_state[:, 0] if hasattr(y, "last_hidden_state") else y


def distance(found, expected):
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).norm() / expected.norm())


class Check:
    def __init__(self, binary, work):
        self.binary, self.work, self.failed, self.count = binary, work, [], 0

    def run(self, *arguments, refused=None):
        """Runs `xla-moco`; with `refused`, these words must be in its refusal."""
        ended = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if refused is None and ended.returncode != 0:
            sys.exit(f"{arguments}: {ended.stderr}")
        if refused is not None:
            self.holds(f"refused: {refused}", ended.returncode == 2 and refused in ended.stderr,
                       ended.stderr)
        return ended.stdout

    def convert(self, source, to, name, *more):
        out = self.work / name
        self.run("convert", "--in", source, "--to", to, "--out", out, *more)
        return out

    def holds(self, what, true, why=""):
        self.count += 1
        print(f"{'ok  ' if true else 'FAIL'} {what}", flush=True)
        if not true:
            print(why)
            self.failed.append(what)

    def close(self, what, found, expected):
        off = distance(found, expected)
        self.holds(f"{what}: {off:.1e} off", off <= TOLERANCE)

    def parity(self, folder, side, expected, model=None):
        """The stored vector is the model's output; and so is the other tool's."""
        stored = load_file(folder / "parity.safetensors")
        assert np.array_equal(stored["pictures"].numpy(), pictures(side))
        self.close(f"{folder.name}: its input", stored["input"], normalised(side))
        self.close(f"{folder.name}: our output", stored["output"], expected)
        if model is not None:
            self.close(f"{folder.name}: the tool's", features(model, stored["input"]), expected)
        self.run("convert", "--verify", folder)

    def onnx(self, source, side, expected, name="onnx", split=False):
        import onnx
        import onnxruntime

        out = self.convert(source, "onnx", name)
        onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
        session = onnxruntime.InferenceSession(str(out / "model.onnx"))
        stored = load_file(out / "parity.safetensors")
        found = session.run(None, {"pixels": stored["input"].numpy()})[0]
        if expected is None:
            expected = stored["output"]
        self.close(f"{name}: onnxruntime's", found, expected)
        one = session.run(None, {"pixels": stored["input"][:1].numpy()})[0]
        self.close(f"{name}: a batch of one", one, expected[:1])
        self.parity(out, side, expected)


def same_tensors(check, what, a, b):
    a, b = load_file(a), load_file(b)
    equal = a.keys() == b.keys() and all(
        x.shape == b[name].shape and x.numpy().tobytes() == b[name].numpy().tobytes()
        for name, x in a.items())
    check.holds(what, equal, f"{len(a)} and {len(b)} tensors")


def check_vit(check):
    import transformers

    make = lambda: vit(384, 12, 12, 16, 224)
    moco = MoCo(make, "head", lambda: mlp([384, 512, 512, 256]), lambda: mlp([256, 512, 256]))
    randomise(moco, 1)
    path = check.work / "vit-s.pth.tar"
    save_like_the_authors(path, moco, "vit_small")
    backbone = moco.base_encoder
    backbone.head = nn.Identity()
    x = normalised(224)
    expected = features(backbone, x)
    check.run("convert", "--in", path, "--to", "timm", "--out", check.work / "no", "--heads", 6,
              refused="12")

    out = check.convert(path, "timm", "vit-timm")
    create = timm.create_model
    check.parity(out, 224, expected, create(f"local-dir:{out}", pretrained=True).eval())
    weights = out / "model.safetensors"
    args = dict(checkpoint_path=str(weights), num_classes=0)
    by_hand = create("vit_small_patch16_224", num_heads=12, **args).eval()
    check.close("timm, checkpoint_path and 12 heads", features(by_hand, x), expected)
    trap = create("vit_small_patch16_224", **args).eval()
    off = distance(features(trap, x), expected)
    check.holds(f"the parity vector catches timm's 6 heads: {off:.1e} off", off > 100 * TOLERANCE)

    hf = check.convert(path, "hf", "vit-hf")
    model = transformers.ViTModel.from_pretrained(hf, add_pooling_layer=False).eval()
    check.parity(hf, 224, expected, model)
    check.onnx(path, 224, expected, "vit-onnx")
    hlo = check.convert(path, "stablehlo", "vit-stablehlo", "--batch", 2)
    check.parity(hlo, 224, expected)
    run = check.convert(path, "xla-moco", "vit-run")
    check.parity(run, 224, expected)
    state = load_file(next(run.glob("checkpoints/*/state.safetensors")))
    original = {name: value for name, value in moco.state_dict().items()
                if "num_batches_tracked" not in name}
    whole = MoCo(make, "head", lambda: mlp([384, 512, 512, 256]), lambda: mlp([256, 512, 256]))
    kept = len([n for n in whole.state_dict() if "num_batches_tracked" not in n])
    equal = len(state) == kept and all(torch.equal(state[n], v) for n, v in original.items())
    check.holds("the run has every tensor of the file, bit for bit", equal)

    # Foreign folders: what the tools themselves write.
    foreign = check.work / "foreign-hf"
    model.save_pretrained(foreign)
    (foreign / "convert.json").unlink(missing_ok=True)
    back = check.convert(foreign, "timm", "hf-timm")
    same_tensors(check, "Hugging Face's own folder gives the same weights", weights,
                 back / "model.safetensors")
    check.parity(back, 224, expected)
    foreign = check.work / "foreign-timm"
    foreign.mkdir()
    save_file({n: v.contiguous() for n, v in by_hand.state_dict().items()}, foreign / "model.safetensors")
    check.run("convert", "--in", foreign, "--to", "hf", "--out", check.work / "no",
              refused="--heads")
    shutil.copy(out / "config.json", foreign)
    back = check.convert(foreign, "hf", "timm-hf")
    same_tensors(check, "timm's weights give the same", hf / "model.safetensors",
                 back / "model.safetensors")

    # DINO's and MAE's ways of keeping a ViT.
    dino = vit(384, 6, 12, 16, 224)
    dino.load_state_dict(by_hand.state_dict())
    dino.eval()
    state = {f"module.backbone.{n}": v for n, v in dino.state_dict().items()}
    state |= {"module.head.mlp.0.weight": torch.zeros(4, 384), "module.head.last_layer.weight_g": torch.zeros(4, 1)}
    from argparse import Namespace
    torch.save({"teacher": state, "student": {}, "epoch": 3, "args": Namespace(arch="vit_small", lr=0.1)},
               check.work / "dino.pth")
    out = check.convert(check.work / "dino.pth", "timm", "dino-timm")
    check.parity(out, 224, features(dino, x), create(f"local-dir:{out}", pretrained=True).eval())
    mae = randomise(vit(768, 12, 1, 16, 224), 4)
    state = mae.state_dict() | {"mask_token": torch.zeros(1, 1, 512), "decoder_blocks.0.norm1.bias": torch.zeros(512)}
    torch.save({"model": state}, check.work / "mae.pth", _use_new_zipfile_serialization=False)
    out = check.convert(check.work / "mae.pth", "hf", "mae-hf")
    model = transformers.ViTModel.from_pretrained(out, add_pooling_layer=False).eval()
    check.parity(out, 224, features(mae, x), model)
    torch.save({"model": state | {"fc_norm.weight": torch.ones(768)}}, check.work / "over.pth")
    check.run("convert", "--in", check.work / "over.pth", "--to", "hf", "--out", check.work / "no",
              refused="fc_norm.weight is left over")


def check_resnet(check):
    def make():
        net = torchvision.models.resnet50()
        net.fc = nn.Identity()
        return net

    moco = MoCo(make, "fc", lambda: mlp([2048, 512, 256]), lambda: mlp([256, 512, 256], False))
    randomise(moco, 2)
    path = check.work / "r-50.pth.tar"
    save_like_the_authors(path, moco, "resnet50")
    backbone = moco.base_encoder
    backbone.fc = nn.Identity()
    expected = features(backbone, normalised(224))

    out = check.convert(path, "torchvision", "r50-torchvision")
    model = make()
    model.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    check.parity(out, 224, expected, model.eval())
    config = json.loads((out / "config.json").read_text())
    block = getattr(torchvision.models.resnet, config["block"])
    by_config = torchvision.models.ResNet(block, config["layers"])
    by_config.fc = nn.Identity()
    by_config.load_state_dict(load_file(out / "model.safetensors"))
    check.close("torchvision, by config.json", features(by_config.eval(), normalised(224)), expected)
    out = check.convert(path, "timm", "r50-timm")
    check.parity(out, 224, expected, timm.create_model(f"local-dir:{out}", pretrained=True).eval())
    check.onnx(path, 224, expected, "r50-onnx")
    check.parity(check.convert(path, "stablehlo", "r50-stablehlo"), 224, expected)
    check.parity(check.convert(path, "xla-moco", "r50-run"), 224, expected)
    check.run("convert", "--in", path, "--to", "hf", "--out", check.work / "no", refused="ResNet")


def check_variants(check):
    """Models that only ONNX and StableHLO take: runs of one step."""
    small = {"blocks": 2, "dim": 24, "heads": 3, "patch": 4, "image_size": 16}
    variants = {
        "conv-stem": small | {"patch_projection": "conv_stem"},
        "bn-mlp": small | {"mlp_norm": "batch"},
        "bn-patch": small | {"patch_projection": "batch_norm"},
        "weight-norm": small | {"patch_projection": "weight_norm"},
        "norm-pool": small | {"output": "norm_pool"},
        "pool": small | {"output": "pool", "position": "none"},
        "resnet-small-stem": {"arch": "resnet", "block": "basic", "stages": [1, 1], "width": 8,
                              "stem": "3x3", "image_size": 16},
    }
    for name, model in variants.items():
        run = check.work / f"{name}-run"
        sets = [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
        if model.get("arch") == "resnet":
            sets += [f"model.{key}=null" for key in ("blocks", "dim", "heads", "patch")]
        sets += ["batch=8", "data.synthetic.images=64", "data.synthetic.test_images=16",
                 "monitor.knn_every=0", "eval.at_start=false", "schedule.warmup_steps=0"]
        sets = [word for entry in sets for word in ("--set", entry)]
        config = ROOT / "configs/quickstart.json"
        check.run("train", "--config", config, "--out", run, "--steps", 2, *sets)
        check.onnx(run, 16, None, f"{name}-onnx")
        hlo = check.convert(run, "stablehlo", f"{name}-stablehlo")
        check.run("convert", "--verify", hlo)
        if name == "norm-pool":
            out = check.convert(run, "timm", "norm-pool-timm")
            expected = load_file(out / "parity.safetensors")["output"]
            check.parity(out, 16, expected, timm.create_model(f"local-dir:{out}", pretrained=True).eval())
        else:
            check.run("convert", "--in", run, "--to", "timm", "--out", check.work / "no",
                      refused="timm has no model like this")


def check_large(check):
    """A ViT-L: its ONNX weights are over 1 GiB, and so in a file of their own."""
    model = randomise(vit(1024, 16, 24, 16, 224), 5)
    path = check.work / "large.safetensors"
    save_file(model.state_dict(), path)
    out = check.convert(path, "xla-moco", "large-run", "--heads", 16)
    check.onnx(out, 224, features(model, normalised(224)), "large-onnx")
    check.holds("a second file", (check.work / "large-onnx/model.onnx.data").stat().st_size > 2**30)


def fixtures():
    folder = ROOT / "tests/fixtures/convert"
    folder.mkdir(parents=True, exist_ok=True)
    make = lambda: vit(24, 12, 2, 4, 16)
    moco = randomise(MoCo(make, "head", lambda: mlp([24, 32, 32, 16]), lambda: mlp([16, 32, 16])), 3)
    save_like_the_authors(folder / "tiny.pth.tar", moco, "vit_small")
    backbone = moco.base_encoder
    backbone.head = nn.Identity()
    torch.save(backbone.state_dict(), folder / "tiny-legacy.pth", _use_new_zipfile_serialization=False)
    save_file({"output": features(backbone, normalised(16)).contiguous()}, folder / "expected.safetensors")
    for path in sorted(folder.iterdir()):
        print(path.stat().st_size, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["check", "fixtures"])
    parser.add_argument("--large", action="store_true", help="only a ViT-L: 5 GB of disk")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/xla-moco")
    arguments = parser.parse_args()
    if arguments.what == "fixtures":
        return fixtures()
    with tempfile.TemporaryDirectory() as work:
        check = Check(arguments.binary, Path(work))
        kinds = [check_large] if arguments.large else [check_vit, check_resnet, check_variants]
        for kind in kinds:
            kind(check)
    if check.failed:
        sys.exit(f"{len(check.failed)} of {check.count} failed: {check.failed}")
    print(f"{check.count} of {check.count} hold")


if __name__ == "__main__":
    main()
