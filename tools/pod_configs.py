#!/usr/bin/env python3
"""Compiles every configuration of configs/paper for its pod: the last table of docs/pods.md.

    cargo build --release && python3 tools/pod_configs.py [CONFIG]...

Needs no accelerator. Of configurations that cost about the same, which are those
with one backbone, method and batch, the first is compiled as `train` lowers it,
and tells the seconds of a step; the others are lowered as a loop where they can
be, which compiles several times faster. Configurations that were compiled before
are kept, unless named. Takes an hour or two in all.
"""

import json
import subprocess
import sys

from pods import BINARY, MODELS, ROOT, ROWS, compiled, load, store, table

CONFIGS = sorted(path.stem for path in (ROOT / "configs/paper").glob("[!_]*.json"))
IMAGES = 1_281_167


def path(config):
    return f"configs/paper/{config}.json"


def pod(config):
    """That of the paper for a model of the size."""
    is_big = any(word in config for word in ("_h14", "_h7", "_l7", "_r200"))
    return "tpu:v3:16x16" if is_big else "tpu:v3:8x16"


def resolved(config):
    shown = subprocess.check_output([BINARY, "configs", "show", "--config", path(config)], cwd=ROOT)
    return json.loads(shown)


VALUES = {config: resolved(config) for config in CONFIGS}


def cost(config):
    """What configurations of about the same cost have in common."""
    model, method = VALUES[config]["model"], VALUES[config]["method"]
    return (model["arch"], model.get("patch"), model.get("mlp_norm"), method["name"], VALUES[config]["batch"])


def can_loop(config):
    model = VALUES[config]["model"]
    return model["arch"].startswith("vit") and model["mlp_norm"] == "layer"


def timed(done):
    """Seconds of a step by cost."""
    found = {}
    for config, report in done.items():
        if report["estimated_seconds"] is not None:
            found.setdefault(cost(config), report["estimated_seconds"])
    return found


def cells(config, report, seconds):
    own = report["estimated_seconds"]
    step = seconds.get(cost(config)) if own is None else own
    steps = VALUES[config]["schedule"]["epochs"] * (IMAGES // report["batch"])
    return [
        config,
        report["target"],
        report["lowering"],
        "yes" if report["fits"] else "no",
        "?" if report["used_bytes"] is None else f"{report['used_bytes'] / 2**30:.2f}",
        "?" if step is None else f"{step:.4f}" + ("" if own is not None else " (its like)"),
        "?" if step is None else f"{step * steps / 3600:.1f}",
        f"{report['compile_seconds']:.0f}",
    ]


HEAD = ["configuration", "target", "lowering", "fits", "GiB a device", "step, s", "hours", "compiled in, s"]


def main():
    named = sys.argv[1:]
    if unknown := [config for config in named if config not in CONFIGS]:
        sys.exit(f"no such configuration: {unknown[0]}; there are: {' '.join(CONFIGS)}")
    kept = load()
    done = kept.setdefault("configs", {})
    # Rows of the first table are these already.
    for row in ROWS:
        target, model = row.split("/")
        for config in CONFIGS:
            if path(config) == MODELS[model][0] and pod(config) == target and row in kept:
                done[config] = kept[row]["whole"]
    for config in named or [config for config in CONFIGS if config not in done]:
        as_loop = can_loop(config) and cost(config) in timed({c: r for c, r in done.items() if c != config})
        more = ["--set", "lowering=scan"] if as_loop else []
        try:
            done[config] = compiled(path(config), pod(config), *more)
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            continue
        seconds = timed(done)
        rows = [cells(config, done[config], seconds) for config in CONFIGS if config in done]
        store(kept, {"configurations": table(HEAD, rows)})


if __name__ == "__main__":
    main()
