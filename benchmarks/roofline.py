"""The rooflines of every hardware that was measured, and where our operators lie below this one's.

    python benchmarks/roofline.py [--name "AMD EPYC, Zen 4"]

Measures the operators of a criteo-kaggle step at batch 2048, each by itself (`dlrm bench ops`), and
this machine's ceilings where they are not known yet (`dlrm bench machine`), which becomes a row of
results; draws the rows of all hardware as docs/images/roofline.svg, one panel each, and prints the
operators as a table in Markdown. `--draw` measures nothing. It takes a minute.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 2009.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrm.bench import results
from dlrm.bench.known import known
from dlrm.commands.bench.ops import bench_ops
from dlrm.files import write_bytes
from dlrm.planning.ceilings import Ceilings
from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    WIDTH,
    callouts,
    drawing,
    labels,
    line_style,
    logarithmic,
    standalone,
)
from dlrm.reporting.words import rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = Path("docs") / "images" / "roofline.svg"
OPERATORS = ("mlp", "interaction", "lookup", "update", "dense_update")
STEP = {
    "batch": "2048", "tables": "26", "rows": "1M", "dim": "16", "pooling": "1,16",
    "precision": "fp32,bf16", "widths": "367-512-256-1",
}  # fmt: skip
"""What operators are measured on: the top MLP of criteo-kaggle, its interaction, its tables with
equally many rows, of one id and of bags of 16."""
QUICK = {
    "batch": "8", "tables": "2", "rows": "100", "dim": "8", "pooling": "1,2",
    "precision": "fp32", "widths": "8-4",
}  # fmt: skip
WORDS = {
    "mlp": "top MLP", "interaction": "interaction", "dense_update": "dense update",
    "lookup": "lookup", "update": "update",
}  # fmt: skip
ROW_BYTES, TABLE_BYTES = 64, 1 << 30
"""Rows at random places are such of such a table."""
BEFORE = (
    {
        "name": "AMD EPYC, Zen 5", "fp32_gflops_per_s": 471.0, "bf16_gflops_per_s": 924.0,
        "copy_gb_per_s": 80.5, "random_gb_per_s": 28.9, "operators": [],
    },
    {
        "name": "Intel Xeon, Sapphire Rapids (AMX)", "fp32_gflops_per_s": 237.0,
        "bf16_gflops_per_s": 915.0, "copy_gb_per_s": 23.0, "random_gb_per_s": 6.1,
        "operators": [],
    },
)  # fmt: skip
"""Machines with two cores that were measured before there were such rows (docs/guides)."""
ROOFS = {
    "bf16_gflops_per_s": ("bf16", "GFLOP/s", "model", ""),
    "fp32_gflops_per_s": ("fp32", "GFLOP/s", "train", ""),
    "copy_gb_per_s": ("copy", "GB/s", "muted", ""),
    "random_gb_per_s": (f"rows of {ROW_BYTES} bytes", "GB/s", "muted", "1.5 2"),
}
"""Ceiling -> its name, unit, colour and dashes."""
LEFT, RIGHT, LOWEST, HIGHEST = 0.05, 20000.0, 0.2, 8000.0
"""FLOP per byte and GFLOP/s that the axes have a place for."""

Row = Mapping[str, Any]


def measured(name: str | None, *, quick: bool) -> dict[str, Any]:
    """Return a row: the ceilings of this machine, and its operators."""
    asked: dict[str, Any] = {**(QUICK if quick else STEP), "rounds": 2 if quick else 11}
    found = bench_ops(OPERATORS, **asked)
    can = known().ceilings
    operators = [
        {
            "name": _words(row),
            "ms": row["ms"],
            "intensity": row["flops"] / row["bytes"],
            **{key: row[key] for key in ("gflops_per_s", "gb_per_s", "roofline_share", "bound")},
        }
        for row in found.rows
        if row["error"] is None
    ]
    operators.sort(key=lambda operator: operator["intensity"])
    row = results.row("roofline", {**ceilings(can), "operators": operators})
    return row | {"name": name or f"{row['cpu']}, {row['cores']} cores"}


def ceilings(can: Ceilings) -> dict[str, float]:
    """Return what all threads of a machine do at most."""
    return {
        **{
            f"{kind}_gflops_per_s": can.flops[kind][can.threads] / 1e9
            for kind in ("fp32", "bf16")
            if kind in can.flops
        },
        "copy_gb_per_s": can.copy[can.threads] / 1e9,
        "random_gb_per_s": ROW_BYTES / can.row_s(TABLE_BYTES, ROW_BYTES) / 1e9,
    }


def _words(row: Row) -> str:
    named = (WORDS[row["operator"]], row["precision"])
    bags = (row["pooling"] or 1) > 1
    return " ".join(filter(None, (*named, f"of bags of {row['pooling']}" if bags else "")))


def rows_kept(folder: Path) -> list[Row]:
    """Return the newest row of each hardware, in the order of their names, those of before too."""
    named: dict[str, Row] = {row["name"]: row for row in BEFORE}
    for path in sorted(folder.glob("*/*-roofline.jsonl")):
        named |= {row["name"]: row for row in results.load(path)}
    return [named[name] for name in sorted(named)]


def drawn(rows: Sequence[Row]) -> str:
    """Return the rooflines as a file of SVG, one panel for each hardware."""
    size: dict[str, Any] = {"columns": len(rows), "width": 0.58 * WIDTH * len(rows)}
    with drawing("roofline", "Rooflines", HIGH, **size, grid="both") as (figure, *panels):
        for ax, row in zip(panels, rows, strict=True):
            logarithmic(ax.xaxis, _count, [0.1, 1, 10, 100, 1000])
            logarithmic(ax.yaxis, _count)
            ax.set_xlim(LEFT, RIGHT)
            ax.set_ylim(LOWEST, HIGHEST)
            _roofs(ax, row)
            dots = _dots(row)
            for dot in dots:
                color = COLOR["model" if "bf16" in dot["name"] else "train"]
                ax.plot([dot["intensity"]], [dot["gflops_per_s"]], "o", color=color, ms=6, mew=0)
            if dots:
                places = [(dot["intensity"], dot["gflops_per_s"]) for dot in dots]
                numbers = [str(at) for at in range(1, len(dots) + 1)]
                callouts(ax, places, numbers, height=0.95)
            labels(ax, "FLOP per byte", "GFLOP/s" if ax is panels[0] else "")
            ax.set_title(row["name"], fontsize=9, color=COLOR["ink"], pad=5, loc="right")
    return standalone(figure.svg)


def _dots(row: Row) -> list[Row]:
    """Return the operators that do arithmetic."""
    return [o for o in row["operators"] if LEFT < o["intensity"] < RIGHT]


def _roofs(ax: "Axes", row: Row) -> None:
    flat = [row[name] for name in ROOFS if "gflops" in name and row.get(name)]
    fastest = row["copy_gb_per_s"]
    for name, (label, unit, role, dashes) in ROOFS.items():
        value = row.get(name)
        if not value:
            continue
        slope = unit == "GB/s"
        # A roof of memory ends where arithmetic limits, and the other way round.
        xs = (LEFT, max(flat) / value) if slope else (value / fastest, RIGHT)
        ys = [value * x if slope else value for x in xs]
        text = f"{label} {rate(value)} {unit}"
        drawn = {"color": COLOR[role], "lw": 1.4, "ls": line_style(dashes)}
        ax.plot(xs, ys, label=text if slope else None, **drawn)
        if not slope:
            # Between two roofs there are dots.
            above = value == max(flat)
            ax.annotate(
                text, (RIGHT, value), (0, 2 if above else -2), "data", "offset points", ha="right",
                va="bottom" if above else "top", fontsize=8, color=COLOR[role],
            )  # fmt: skip
    ax.legend(
        loc="lower right", fontsize=8, labelcolor=COLOR["muted"], frameon=False, handlelength=1.8
    )


def _count(value: float) -> str:
    return f"{value:,g}"


def markdown(row: Row) -> str:
    """Return the operators of a machine as a table, numbered as in the picture."""
    lines = [
        "| | operator | FLOP per byte | GFLOP/s | GB/s | of its limit |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    dots = _dots(row)
    for operator in row["operators"]:
        number = dots.index(operator) + 1 if operator in dots else ""
        speed = rate(operator["gflops_per_s"]) if operator["intensity"] else "–"
        lines.append(
            f"| {number} | {operator['name']} | {operator['intensity']:.3g} | {speed} | "
            f"{rate(operator['gb_per_s'])} | {operator['roofline_share']:.0%} |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--name", help="what this hardware is called; else its CPU and cores")
    flags.add_argument("--draw", action="store_true", help="measure nothing, draw what is kept")
    flags.add_argument("--out", type=Path, help="the row is appended to this file, as JSON")
    flags.add_argument("--picture", type=Path, default=PICTURE)
    flags.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    given = flags.parse_args(list(words))
    rows = rows_kept(results.RESULTS)
    if not given.draw:
        row = measured(given.name, quick=given.quick)
        print(f"Saved: {results.save([row], given.out)}")
        print(markdown(row))
        rows = [*(kept for kept in rows if kept["name"] != row["name"]), row]
    if not given.quick:
        write_bytes(given.picture, drawn(rows).encode())
        print(f"Drawn: {given.picture}")


if __name__ == "__main__":
    main(sys.argv[1:])
