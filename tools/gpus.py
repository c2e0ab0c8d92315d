#!/usr/bin/env python3
"""Compiles the train step for H100s that are not there: the table of docs/gpu.md.

    cargo build --release && python3 tools/gpus.py [ROW]...

Takes `xla-moco plugins install gpu --compile-only` and no GPU. A row takes minutes. Rows that are
named (as `vit_b16/8` or `vit_b16/8/fused`: model, number of GPUs, attention) are compiled anew, those
that are missing always; results are kept in docs/pods.json.
"""

import sys

from pods import MODELS, ROOT, compiled, load, store, table

CONFIGS = {model: MODELS[model][0] for model in ("vit_s16", "vit_b16", "vit_l16")}
CONFIGS["r50"] = "configs/paper/moco_v3_r50_300ep.json"
LABELS = {"vit_s16": "ViT-S/16", "vit_b16": "ViT-B/16", "vit_l16": "ViT-L/16", "r50": "R50"}
# 512 pictures a GPU: the paper's batch of 4096 on eight. What the plain step needs too much memory
# for is given here, so that no row tries all lowerings, a compilation each.
LIGHTER = {"vit_b16": ["lowering=remat"], "vit_l16": ["lowering=remat", "accumulate=4"]}
ROWS = [f"{model}/{gpus}" for model in CONFIGS for gpus in (1, 8)]
ROWS[2:2] = ["vit_s16/1/fused", "vit_s16/8/fused"]

HEAD = [
    "model", "GPUs", "attention", "batch", "lowering", "accumulate", "fits", "arguments, GiB", "temporaries, GiB",
    "in all, GiB a GPU", "all-reduces", "of MB", "compiled in, s",
]  # fmt: skip


def settings(row):
    model, gpus, *fused = row.split("/")
    values = [f"batch={512 * int(gpus)}", *LIGHTER.get(model, [])]
    values += ["model.attention=fused"] if fused else []
    return [word for value in values for word in ("--set", value)]


def cells(row, report):
    model, gpus, *fused = row.split("/")
    attention = "" if model == "r50" else "fused" if fused else "plain"
    gib = lambda value: "?" if value is None else f"{value / 2**30:.2f}"
    reduced = (report["collectives"] or {}).get("all-reduce", {"count": 0, "bytes": 0})
    return [
        LABELS[model],
        gpus,
        attention,
        str(report["batch"]),
        report["lowering"],
        str(report["accumulate"]),
        "yes" if report["fits"] else "no",
        gib(report["argument_bytes"]),
        gib(report["temp_bytes"]),
        gib(report["used_bytes"]),
        str(reduced["count"]),
        f"{reduced['bytes'] / 1e6:.1f}",
        f"{report['compile_seconds']:.0f}",
    ]


def main():
    named = sys.argv[1:]
    if unknown := [row for row in named if row not in ROWS]:
        sys.exit(f"no such row: {unknown[0]}; rows: {' '.join(ROWS)}")
    kept = load()
    done = kept.setdefault("gpus", {})
    for row in named or [row for row in ROWS if row not in done]:
        model, gpus = row.split("/")[:2]
        done[row] = compiled(CONFIGS[model], f"gpu:h100:{gpus}", *settings(row))
        rows = [cells(row, done[row]) for row in ROWS if row in done]
        store(kept, {"gpus": table(HEAD, rows)}, ROOT / "docs/gpu.md")


if __name__ == "__main__":
    main()
