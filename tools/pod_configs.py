#!/usr/bin/env python3
"""Compiles every configuration of configs/paper for its pod: the last table of docs/pods.md.

    cargo build --release && python3 tools/pod_configs.py [CONFIG]...

Needs no accelerator. Configurations are lowered as `train` does, on the first
lowering that fits. Those that were compiled before are kept, unless named. Takes
one and a half hours in all.
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


def cells(config, report):
    seconds = report["estimated_seconds"]
    steps = VALUES[config]["schedule"]["epochs"] * (IMAGES // report["batch"])
    return [
        config,
        report["target"],
        report["lowering"],
        "yes" if report["fits"] else "no",
        "?" if report["used_bytes"] is None else f"{report['used_bytes'] / 2**30:.2f}",
        "?" if seconds is None else f"{seconds:.4f}",
        "?" if seconds is None else f"{seconds * steps / 3600:.1f}",
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
        try:
            done[config] = compiled(path(config), pod(config))
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            continue
        rows = [cells(config, done[config]) for config in CONFIGS if config in done]
        store(kept, {"configurations": table(HEAD, rows)})


if __name__ == "__main__":
    main()
