"""Sweeps of single operators on a page of benchmarks."""

from collections.abc import Sequence
from math import isfinite, nan

from dlrm.reporting.bench_rows import Case
from dlrm.reporting.markup import Html, element
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import UNKNOWN, number, percent

SETTINGS = (
    "batch", "tables", "rows", "dim", "pooling", "ids", "precision", "storage", "optim", "widths",
    "threads",
)  # fmt: skip
HEADS = (
    "ms", "95% interval", "p95", "Warm ms", "MFLOP", "MB", "GFLOP/s", "GB/s", "Of roofline",
)  # fmt: skip


def section(cases: Sequence[Case]) -> Html | None:
    """Return a table for each operator, of the settings that were tried."""
    if not cases:
        return None
    names = dict.fromkeys((case.operator, case.machine) for case in cases)
    folds = []
    for at, (name, machine) in enumerate(names):
        of = [case for case in cases if (case.operator, case.machine) == (name, machine)]
        folds.append(fold(_summary(name, of), _table(of), shown=at == 0))
    return element("section", element("h2", "Operators alone"), *folds)


def _summary(name: str, cases: Sequence[Case]) -> str:
    failed = sum(bool(case.error) for case in cases)
    said = f"{name}: {len(cases)} setting{'s' if len(cases) > 1 else ''}"
    return f"{said}, {failed} of them failed" if failed else said


def _table(cases: Sequence[Case]) -> Html:
    varying = [key for key in SETTINGS if len({str(case.row.get(key)) for case in cases}) > 1]
    same = [
        f"{key} {_said(cases[0].row[key])}"
        for key in SETTINGS
        if key not in varying and cases[0].row.get(key) is not None
    ]
    heads = [*(key.capitalize() for key in varying), *HEADS, "Bound by"]
    rows = []
    for case in cases:
        places = [element("td", _said(case.row.get(key)), class_="n") for key in varying]
        if case.error:
            failed = element("td", f"failed: {case.error}", colspan=len(HEADS) + 1)
            rows.append(element("tr", *places, failed))
            continue
        figures = [element("td", cell, class_="n") for cell in _cells(case)]
        rows.append(element("tr", *places, *figures, element("td", case.bound)))
    caption = ", ".join(same)
    return table(heads, rows, numbers=heads[:-1], caption=caption or None)


def _cells(case: Case) -> list[str]:
    known = isfinite(case.ms_low + case.ms_high)
    return [
        number(case.ms),
        f"{number(case.ms_low)} to {number(case.ms_high)}" if known else UNKNOWN,
        number(case.p95_ms),
        number(case.warm_ms),
        number(case.flops / 1e6 or nan, 2),
        number(case.bytes / 1e6, 2),
        number(case.gflops_per_s or nan, 1),
        number(case.gb_per_s, 1),
        percent(case.roofline_share),
    ]


def _said(value: object) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    return number(value) if isinstance(value, int) else str(UNKNOWN if value is None else value)
