"""The page of one trained model on several runtimes: who answers alike, and how fast."""

from collections.abc import Sequence

from dlrm.reporting.charts.bars import Piece, stacks
from dlrm.reporting.charts.drawing import Figure
from dlrm.reporting.page import Page
from dlrm.runtimes.contrast import Row
from dlrm.runtimes.verify import EQUAL, REDUCED


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
    for size in _sizes(run):
        times = {row.title: row.latency[size].p50_us for row in run if row.latency}
        best = min(times, key=times.__getitem__)
        sentences.append(f"Fastest at batch {size}: {best}, {times[best]:,.0f} us.")
    return " ".join(sentences)


def _computes(row: Row) -> str:
    precision = str((row.about or {}).get("precision", ""))
    if precision in ("", "f32", "fp32"):
        return ""
    return f", because it computes in {precision}, which nobody asked for"


def page(rows: Sequence[Row], title: str, about: str) -> Page:
    """Return the page of some runtimes; `about` says in a line on what they were measured."""
    run = [row for row in rows if row.verdict]
    return Page(
        kind="dlrm runtimes",
        title=title,
        about=about,
        verdict=conclusion(rows),
        template="runtimes.html",
        shown={
            "run": run,
            "sizes": _sizes(run),
            "figures": [_chart(run, size) for size in _sizes(run)],
            "missing": [f"{row.title}: {row.missing}" for row in rows if row.missing],
            "caption": "Difference: the largest of a probability from eager float32, equal up to "
            f"{EQUAL:g}, and up to {REDUCED:g} where a runtime is asked for less precision",
        },
    )


def _sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({size for row in rows for size in row.latency or {}})


def _chart(run: Sequence[Row], size: int) -> Figure:
    """Draw the median call of each runtime for batches of a size."""
    bars = [[Piece(row.latency[size].p50_us, _role(row))] for row in run if row.latency is not None]
    figure = stacks(
        f"batch-{size}",
        f"Batches of {size:,}: lower is better",
        bars,
        x_label="",
        y_label="microseconds, median",
        texts=[row.name for row in run],
    )
    figure.note = "Runtimes take turns; batches rotate."
    return figure


def _role(row: Row) -> str:
    if row.name == "eager":
        return "model"
    return {"equal": "optimum", "failed": "baseline"}.get(row.verdict or "", "train")
