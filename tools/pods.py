#!/usr/bin/env python3
"""Regenerates the first tables of docs/pods.md: one `xla-moco compile` a row.

    cargo build --release && python3 tools/pods.py [ROW]...

Needs no accelerator: the TPU and GPU plugins compile for devices that are not
there. A row takes minutes. Rows that are named (as `tpu:v3:8x16/vit_s16`, or
`tpu:v3:8x16/vit_s16/scan` of the table of compile times) are compiled anew, all
others kept; without names, all are. Results are kept in docs/pods.json, from
which the tables are written. tools/pod_configs.py does every configuration.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/pods.json"
PAGE = ROOT / "docs/pods.md"
BINARY = pathlib.Path(os.environ.get("XLA_MOCO", ROOT / "target/release/xla-moco"))
BEGIN, END = "<!-- table: {} -->", "<!-- end of table -->"

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
# The same as a loop, of 12, 24 and 32 blocks.
LOOPS = ["tpu:v3:8x16/vit_s16/scan", "tpu:v3:8x16/vit_l16/scan", "tpu:v3:16x16/vit_h14/scan"]


def compiled(config, target, *more, cache=None):
    command = [BINARY, "compile", "--json", "--config", config, "--target", target, *more]
    print("compiling", config, target, *more, flush=True)
    env = os.environ | ({"XDG_CACHE_HOME": cache} if cache else {})
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{config} on {target}: exit code {done.returncode}")
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


def timed(config, target, lowering):
    """Compiles with the plugins that are there and no other cache, and adds the seconds of processor time:
    what else the machine does does not count."""
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    with tempfile.TemporaryDirectory() as cache:
        (pathlib.Path(cache) / "xla-moco").mkdir()
        (pathlib.Path(cache) / "xla-moco/plugins").symlink_to(home / "xla-moco/plugins")
        before = os.times()
        report = compiled(config, target, "--set", f"lowering={lowering}", cache=cache)
        after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return report | {"processor_seconds": spent}


def loop_cells(row, kept):
    target, model, _ = row.split("/")
    cells = [LABELS[model], target]
    for report in (kept[row]["unrolled"], kept[row]["scan"]):
        cells += [f"{report['processor_seconds']:.0f}", f"{report['used_bytes'] / 2**30:.2f}"]
    return cells


LOOP_HEAD = ["model", "target", "unrolled: compiled in, s", "GiB a device", "scan: compiled in, s", "GiB a device"]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def load():
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def store(kept, tables, file=PAGE):
    """Keeps the results, and writes tables, by their names, into the page."""
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    page = file.read_text()
    for name, text in tables.items():
        before, rest = page.split(BEGIN.format(name))
        _, after = rest.split(END, 1)
        page = f"{before}{BEGIN.format(name)}\n\n{text}\n\n{END}{after}"
    file.write_text(page)


def main():
    wanted = sys.argv[1:] or ROWS + LOOPS
    unknown = [row for row in wanted if row not in ROWS + LOOPS]
    if unknown:
        sys.exit(f"no such row: {unknown[0]}; rows: {' '.join(ROWS + LOOPS)}")
    kept = load()
    for row in wanted:
        target, model, *loop = row.split("/")
        config = MODELS[model][0]
        if loop:
            kept[row] = {lowering: timed(config, target, lowering) for lowering in ("unrolled", "scan")}
        else:
            kept[row] = {"whole": compiled(config, target)}
        # The JAX twin is a core step, on v3.
        if row in V3:
            kept[row]["core"] = compiled(config, target, "--core")
        pods = [cells(row, kept[row]) for row in ROWS if row in kept]
        loops = [loop_cells(row, kept) for row in LOOPS if row in kept]
        store(kept, {"pods": table(HEAD, pods), "compile times": table(LOOP_HEAD, loops)})


if __name__ == "__main__":
    main()
