#!/usr/bin/env python3
"""Regenerates the table of docs/pods.md: one `xla-moco compile` a row.

    cargo build --release && python3 tools/pods.py [ROW]...

Needs no accelerator: the TPU and GPU plugins compile for devices that are not
there. A row takes minutes. Rows that are named (as `tpu:v3:8x16/vit_s16`) are
compiled anew, all others kept; without names, all are. Results are kept in
docs/pods.json, from which the table is written.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/pods.json"
PAGE = ROOT / "docs/pods.md"
BEGIN, END = "<!-- table: tools/pods.py -->", "<!-- end of table -->"

# Model: its configuration, and the seconds of an equivalent JAX step by the
# same compiler on v3: of the core step, without augmentation, monitors, queue.
MODELS = {
    "vit_s16": ("configs/paper/moco_v3_vit_s16_300ep.json", 0.0523),
    "vit_b16": ("configs/paper/moco_v3_vit_b16_300ep.json", 0.1241),
    "vit_l16": ("configs/paper/moco_v3_vit_l16_300ep.json", 0.3931),
    "vit_h14": ("configs/paper/moco_v3_vit_h14_300ep.json", None),
    "vit_l7": ("configs/paper/moco_v3_vit_l7_300ep.json", 1.591),
    "vit_bn_h7": ("configs/paper/moco_v3_vit_bn_h7_300ep.json", None),
}
LABELS = dict(zip(MODELS, ["S/16", "B/16", "L/16", "H/14", "L/7", "BN-H/7"]))
V3 = ["tpu:v3:8x16/vit_s16", "tpu:v3:8x16/vit_b16", "tpu:v3:8x16/vit_l16"]
V3 += ["tpu:v3:16x16/vit_h14", "tpu:v3:16x16/vit_l7", "tpu:v3:16x16/vit_bn_h7"]
OTHERS = ["tpu:v4:4x4x4", "tpu:v5e:16x16", "tpu:v6e:16x16", "gpu:h100:8"]
ROWS = V3 + [f"{target}/{model}" for target in OTHERS for model in ("vit_s16", "vit_b16")]


def compiled(row, core):
    target, model = row.split("/")
    config, _ = MODELS[model]
    command = [pathlib.Path(os.environ.get("XLA_MOCO", ROOT / "target/release/xla-moco")), "compile", "--json"]
    command += ["--config", config, "--target", target] + (["--core"] if core else [])
    print("compiling", row, "core" if core else "whole", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(f"{row}: exit code {done.returncode}")
    report = json.loads(done.stdout)
    for long in ("estimates", "collectives_by_scope", "biggest_buffers", "hardware"):
        report.pop(long, None)
    return report


def cells(row, kept):
    target, model = row.split("/")
    core, whole = kept.get("core"), kept.get("whole")
    number = lambda value, form: "?" if value is None else format(value, form)
    seconds = lambda report: number(report and report["estimated_seconds"], ".4f")
    gib = lambda *parts: number(
        None if None in parts else sum(parts) / 2**30, ".2f"
    )
    twin = MODELS[model][1] if target.startswith("tpu:v3") else None
    some = whole or core
    fits = "yes" if some["fits"] else "no"
    memory = gib(some["used_bytes"])
    return [
        LABELS[model],
        f"{target} ({some['devices']})",
        some["lowering"],
        fits,
        memory,
        seconds(core),
        number(twin, ".4f"),
        seconds(whole),
        number(some["roofline_seconds"], ".4f"),
        number(some["interconnect_seconds"], ".4f"),
        number(100 * some["model_flop_utilisation"], ".0f")
        + ("" if some["pace_from"] == "compiler" else " (roofline)"),
        number(some["images_per_second"], ".0f"),
        number(some["hours_per_100_epochs"], ".2f"),
        number(some["compile_seconds"], ".0f"),
    ]


HEAD = [
    "model", "target (devices)", "lowering", "fits", "GiB a device",
    "core step, s", "JAX twin, s", "whole step, s", "roofline, s", "network, s",
    "MFU, %", "images/s", "h / 100 epochs", "compiled in, s",
]  # fmt: skip


def table(kept):
    rows = [HEAD, ["---"] * len(HEAD)]
    rows += [cells(row, kept[row]) for row in ROWS if row in kept]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    wanted = sys.argv[1:] or ROWS
    unknown = [row for row in wanted if row not in ROWS]
    if unknown:
        sys.exit(f"no such row: {unknown[0]}; rows: {' '.join(ROWS)}")
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for row in wanted:
        kept[row] = {"whole": compiled(row, core=False)}
        # The JAX twin is a core step, on v3.
        if row in V3:
            kept[row]["core"] = compiled(row, core=True)
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(kept)}\n\n{END}{after}")


if __name__ == "__main__":
    main()
