"""Figures in words and units, as `dlrm bench diff` shows them."""

from collections.abc import Sequence

from dlrm import terminal
from dlrm.bench.figure import Figure
from dlrm.bench.pair import Compared

SUBJECTS = {"step_ms": "a step", "ms": "it", "ours_ms": "ours"}
TITLES = {"ms": "time", "auc_change": "AUC", "call_s": "call"}


def title(each: Compared) -> str:
    """Return what a figure is of: `original p95`, `lines/s`, `copy, 2 threads`."""
    name = each.name
    match name.removesuffix("_s").split(" "):
        case ["gather", row, table, threads]:
            sizes = f"{row} B rows of {terminal.human_bytes(int(table))}"
            return f"{sizes}, {_threads(threads)}"
        case [what, threads] if threads.isdecimal():
            return f"{what}, {_threads(threads)}"
    if name in TITLES:
        return TITLES[name]
    for unit, after in (("_per_s", "/s"), ("_ms", ""), ("_s", "")):
        if name.endswith(unit):
            return name.removesuffix(unit).replace("_", " ") + after
    return name.replace("_", " ")


def subject_of(each: Compared) -> str:
    """Return a figure as the subject of a sentence."""
    return SUBJECTS.get(each.name) or title(each)


def cells(each: Compared) -> tuple[str, str, str, str]:
    """Return before, after, ratio and verdict, as narrow as a terminal is."""
    possible = times(each).replace(" (", "\n").replace(" to ", "–").removesuffix(")")
    verdict = "none" if each.verdict == "no verdict" else each.verdict
    return value(each, each.before), value(each, each.after), possible, verdict


def value(each: Compared, figure: Figure) -> str:
    """Return a figure with three digits and its unit."""
    if figure.kind == "accuracy":
        return f"{figure.value:+.5f}"
    if figure.kind == "rate":
        return _scaled(figure.value, ((1e9, "G"), (1e6, "M"), (1.0, "")))
    seconds = figure.value if each.name.endswith("_s") else figure.value / 1e3
    return _scaled(seconds, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")))


def _scaled(number: float, units: Sequence[tuple[float, str]]) -> str:
    """Return three digits of a number, in the largest unit that it reaches."""
    size, unit = next((each for each in units if number >= each[0]), units[-1])
    number /= size
    return f"{number:,.0f} {unit}".strip() if number >= 999.5 else f"{number:.3g} {unit}".strip()


def times(each: Compared) -> str:
    """Return how many times it became, or the difference of an accuracy, with what is possible."""
    if each.before.kind == "accuracy":
        return f"{each.after.value - each.before.value:+.5f}"
    ratio, low, high = each.ratio
    if ratio is None:
        return "-"
    return f"{ratio:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def _threads(count: str) -> str:
    return "1 thread" if count == "1" else f"{count} threads"
