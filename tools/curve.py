"""Held-out kNN against steps and seconds of several runs, as a table in Markdown.

    python3 tools/curve.py RUN [RUN ...]

Reads metrics.jsonl and events.jsonl of each run folder. Seconds are those of training, evaluations
not counted, and start at the first step.
"""

import json
import statistics
import sys
from pathlib import Path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(run: Path) -> dict[int, tuple[float, float, float | None]]:
    """Step -> (percent, seconds, mean loss since the last evaluation)."""
    metrics = {m["step"]: m for m in lines(run / "metrics.jsonl")}
    points, last = {}, 0
    for event in lines(run / "events.jsonl"):
        if event["kind"] == "heldout_knn":
            step = event["step"]
            seconds = metrics[step]["seconds"] if step else 0.0
            losses = [metrics[s]["loss"] for s in range(last + 1, step + 1)]
            points[step] = (event["knn_top1"], seconds, statistics.mean(losses) if losses else None)
            last = step
    return points


def main(runs: list[Path]) -> None:
    curves = [curve(run) for run in runs]
    steps = sorted(set.intersection(*(set(c) for c in curves)))
    print("| step | " + " | ".join(f"{r.name}: kNN %, seconds, loss" for r in runs) + " | mean kNN %, standard error |")
    print("|---" * (len(runs) + 2) + "|")
    for step in steps:
        cells = []
        for points in curves:
            knn, seconds, loss = points[step]
            cells.append(f"{knn:.1f}, {seconds:.0f} s, " + ("" if loss is None else f"{loss:.3f}"))
        values = [points[step][0] for points in curves]
        mean = f"{statistics.mean(values):.1f}"
        if len(values) > 1:
            mean += f", {statistics.stdev(values) / len(values) ** 0.5:.1f}"
        print(f"| {step} | " + " | ".join(cells) + f" | {mean} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
