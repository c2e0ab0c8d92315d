"""An equivalent MoCo v3 training step in PyTorch, to be timed beside ours on a GPU.

    python tools/bench_torch.py --preset vit_b16 --batch 256                    # eager
    python tools/bench_torch.py --preset vit_b16 --batch 256 --compile          # torch.compile
    python tools/bench_torch.py --preset vit_micro --batch 16 --device cpu --time 3
    python tools/bench_torch.py --check --device cpu

The model is that of tools/reference/moco_torch.py, written from the equations, in the form that one
would train: automatic mixed precision in bf16, pictures channels-last, attention by
`scaled_dot_product_attention`, moving average by one call for all tensors, fused AdamW. Both encoders
on both views, loss, gradients, AdamW and the moving average; no augmentation, no monitors, as
`xla-moco bench --core` and tools/bench_jax.py. Prints one JSON object. `--check` compares loss and
gradients with the plain form, in f32. `r50` is torchvision's ResNet-50 with the heads that the paper
gives it, and SGD where the paper has LARS, which PyTorch lacks: a little less work than ours.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "reference"))

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import moco_torch
from common import agree, comparable
from moco_torch import Config, MocoV3, head_mlp

# Name: the model and the batch (pictures a view); as in bench_jax.py.
PRESETS = {
    "vit_micro": (Config(blocks=4, dim=128, heads=4, patch=8, image=32, hidden=512, out=128), 128),
    "vit_s16": (Config(blocks=12, dim=384, heads=12, patch=16, image=224, hidden=4096, out=256), 256),
    "vit_b16": (Config(blocks=12, dim=768, heads=12, patch=16, image=224, hidden=4096, out=256), 256),
    "r50": (Config(dim=2048, image=224, hidden=4096, out=256), 256),
}


def attention(self, x: Tensor) -> Tensor:
    """All heads at once, without the matrix of scores where the device can do so."""
    batch, tokens, dim = x.shape
    q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(q, k, v)
    return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))


def contrastive_loss(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """As the reference's, in f32 on the device of `q`."""
    q = F.normalize(q.float(), dim=1, eps=1e-12)
    k = F.normalize(k.detach().float(), dim=1, eps=1e-12)
    labels = torch.arange(len(q), device=q.device)
    return F.cross_entropy(q @ k.T / temperature, labels) * 2 * temperature


class Fast(MocoV3):
    """The reference with the same parameters, in the form to be timed."""

    contrastive_loss = staticmethod(contrastive_loss)

    def __init__(self, config: Config):
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, moco_torch.Attention):
                module.forward = attention.__get__(module)

    @torch.no_grad()
    def update_momentum_encoder(self, m: float) -> None:
        slow, fast = list(self.momentum_encoder.parameters()), list(self.base_encoder.parameters())
        torch._foreach_lerp_(slow, fast, 1 - m)


class FastResNet(Fast):
    """ResNet-50: a projector of two layers that ends in BN, a predictor that does not."""

    def __init__(self, config: Config):
        nn.Module.__init__(self)
        self.temperature = config.temperature
        self.base_encoder = torchvision.models.resnet50(zero_init_residual=True)
        self.base_encoder.fc = head_mlp([config.dim, config.hidden, config.out])
        self.predictor = head_mlp([config.out, config.hidden, config.out])[:-1]
        self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)


def views(config: Config, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise around a colour of each picture's own."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randn(batch, 3, 1, 1, generator=generator)
    shape = (batch, 3, config.image, config.image)
    view = lambda: colour + 0.5 * torch.randn(shape, generator=generator)
    return view(), view()


def built(config: Config, kind: type) -> MocoV3:
    model = kind(config)
    if kind is not FastResNet:  # torchvision has initialised its own
        moco_torch.initialise(model, torch.Generator().manual_seed(0))
    return model


def check(device: str) -> None:
    config = Config()
    x1, x2 = views(config, 8)
    found = {}
    for kind, where in ((MocoV3, "cpu"), (Fast, device)):
        model = built(config, kind).to(where)
        loss = model.loss(x1.to(where), x2.to(where), 0.99)
        loss.backward()
        grads = {k: p.grad.cpu() for k, p in model.named_parameters() if p.grad is not None}
        slow = {k: p.cpu() for k, p in model.momentum_encoder.named_parameters()}
        found[kind] = (loss.item(), grads, slow)
    (plain, plain_grads, plain_slow), (fast, fast_grads, fast_slow) = found[MocoV3], found[Fast]
    assert abs(plain - fast) < 1e-5, (plain, fast)
    assert plain_grads.keys() == fast_grads.keys()
    for ours, theirs in ((fast_grads, plain_grads), (fast_slow, plain_slow)):
        for name, tensor in theirs.items():
            agree(name, comparable(name, ours[name]), comparable(name, tensor), 1e-4)
    # The paper's code: both encoders and the predictor of ResNet-50.
    parameters = sum(p.numel() for p in FastResNet(PRESETS["r50"][0]).parameters())
    assert parameters == 68_012_160, parameters
    print(json.dumps({"check": "equal", "loss": plain, "gradients": len(plain_grads)}))


def measure(args: argparse.Namespace, config: Config, batch: int) -> None:
    device = args.device
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    is_resnet = args.preset == "r50"
    model = built(config, FastResNet if is_resnet else Fast).to(device).train()
    if is_resnet:
        model = model.to(memory_format=torch.channels_last)
    trained = [p for p in model.parameters() if p.requires_grad]
    if is_resnet:
        optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-6, fused=True)
    else:
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1, fused=True)
    x1, x2 = (x.to(device, memory_format=torch.channels_last) for x in views(config, batch))
    loss_of = torch.compile(model.loss) if args.compile else model.loss

    def step() -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=not args.f32):
            loss = loss_of(x1, x2, 0.99)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    begin = time.perf_counter()
    losses = [step().item()]
    first = time.perf_counter() - begin
    for _ in range(args.warmup - 1):
        losses.append(step())
    wait()
    times = []
    for _ in range(args.time):
        begin = time.perf_counter()
        losses.append(step())
        wait()
        times.append(1e3 * (time.perf_counter() - begin))
    median = statistics.median(times)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "mode": "compile" if args.compile else "eager",
                "device": name,
                "compute": "float32" if args.f32 else "bfloat16",
                "preset": args.preset,
                "batch": batch,
                "first_step_s": round(first, 2),
                "median_ms": round(median, 3),
                "images_per_second": round(1e3 * batch / median, 1),
                "step_ms": [round(t, 3) for t in times],
                "peak_memory_bytes": memory,
                "loss": [float(losses[0]), float(losses[-1])],
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="vit_b16")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures a view, instead of the preset's")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--f32", action="store_true", help="without mixed precision")
    parser.add_argument("--time", type=int, default=20, metavar="STEPS")
    parser.add_argument("--warmup", type=int, default=5, metavar="STEPS")
    parser.add_argument("--check", action="store_true", help="compare with the plain form, and time nothing")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU; --device cpu tries the script without one")
    if args.warmup < 1 or args.time < 1:
        parser.error("--warmup and --time are 1 or more")
    if args.check:
        return check(args.device)
    config, batch = PRESETS[args.preset]
    measure(args, config, batch if args.batch is None else args.batch)


if __name__ == "__main__":
    main()
