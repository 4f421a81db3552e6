"""The page of one trained model on several runtimes: who answers alike, and how fast."""

from collections.abc import Sequence
from pathlib import Path

from dlrm.reporting.charts.bars import Piece, stacks
from dlrm.reporting.page import Cell, Figure, Grid, Lines, Page, Section, Table, save
from dlrm.reporting.words import UNKNOWN
from dlrm.runtimes.contrast import Row
from dlrm.runtimes.verify import EQUAL, REDUCED
from dlrm.terminal import human_bytes


def conclusion(rows: Sequence[Row]) -> str:
    """Return what came out, in some sentences."""
    run = [row for row in rows if row.verdict]
    sentences = []
    if equal := [row.title for row in run if row.verdict == "equal"]:
        sentences.append(f"Within {EQUAL:g} of PyTorch's probabilities: {', '.join(equal)}.")
    if reduced := [row.title for row in run if (row.verdict or "").startswith("reduced")]:
        sentences.append(f"With less precision, which is declared: {', '.join(reduced)}.")
    for row in run:
        if row.verdict == "failed":
            apart = f"{row.max_abs_diff:.1e}"
            sentences.append(f"{row.title} fails: it differs by up to {apart}{_computes(row)}.")
    for size in sorted({size for row in run for size in row.latency or {}}):
        times = {row.title: row.latency[size].p50_us for row in run if row.latency}
        best = min(times, key=times.__getitem__)
        sentences.append(f"Fastest at batch {size}: {best}, {times[best]:,.0f} us.")
    return " ".join(sentences)


def _computes(row: Row) -> str:
    precision = str((row.about or {}).get("precision", ""))
    if precision in ("", "f32", "fp32"):
        return ""
    return f", because it computes in {precision}, which nobody asked for"


def write(path: Path, rows: Sequence[Row], title: str, about: str) -> Path:
    """Write the page, and return where it is."""
    page = Page(
        kind="dlrm runtimes",
        title=title,
        about=about,
        verdict=conclusion(rows),
        sections=[
            Section("Time of a call", [Grid(_figures(rows))]),
            Section("In numbers", [_numbers(rows), *_missing(rows)]),
        ],
    )
    return save(page, path)


def _figures(rows: Sequence[Row]) -> list[Figure]:
    """Draw the median call of each runtime, a figure for each size of batches."""
    figures = []
    for size in sorted({size for row in rows for size in row.latency or {}}):
        timed = [(row, row.latency[size]) for row in rows if row.latency]
        bars = [[Piece(latency.p50_us, _role(row))] for row, latency in timed]
        svg = stacks(
            f"batch-{size}",
            bars,
            x_label="",
            y_label="microseconds, median",
            texts=[row.name for row, _ in timed],
        )
        title = f"Batches of {size:,}: lower is better"
        figures.append(Figure(title, svg, "Runtimes take turns; batches rotate."))
    return figures


def _role(row: Row) -> str:
    if row.name == "eager":
        return "model"
    return {"equal": "optimum", "failed": "baseline"}.get(row.verdict or "", "train")


def _numbers(rows: Sequence[Row]) -> Table:
    run = [row for row in rows if row.verdict]
    sizes = sorted({size for row in run for size in row.latency or {}})
    heads = ["Runtime", "Verdict", "Difference", "Rank flips", "AUC change", "Start-up", "Size"]
    heads += [f"{what}, batch {size}" for size in sizes for what in ("p50", "p99")]
    cells = []
    for row in run:
        about = row.about or {}
        small = f"{about.get('version', '')} · {about.get('precision', '')}"
        small += f" · {about.get('threads', '')} threads"
        change = row.auc_change
        times = [
            f"{value:,.0f} us"
            for size in sizes
            for latency in ((row.latency or {}).get(size),)
            for value in ((latency.p50_us, latency.p99_us) if latency else (float("nan"),) * 2)
        ]
        cells.append(
            [
                Cell(row.title, small=small),
                row.verdict or "",
                f"{row.max_abs_diff:.1e}",
                f"{row.rank_flips:,}",
                UNKNOWN if change is None else f"{change:+.1e}",
                f"{row.start_up_s or 0:.2f} s",
                human_bytes(row.size_bytes or 0),
                *times,
            ]
        )
    caption = (
        f"Difference: the largest of a probability from eager float32, equal up to {EQUAL:g}, and "
        f"up to {REDUCED:g} where a runtime is asked for less precision"
    )
    return Table(heads, cells, heads[2:], caption)


def _missing(rows: Sequence[Row]) -> list[Lines]:
    lines = [f"{row.title}: {row.missing}" for row in rows if row.missing]
    return [Lines("Not run", lines)] if lines else []
