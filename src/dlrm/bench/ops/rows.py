"""Outcomes as rows of results: settings, figures, and how near they are to the machine's limit."""

from dataclasses import replace
from typing import Any

from dlrm.bench.cost.least import least
from dlrm.bench.ops.timed import Outcome
from dlrm.planning.ceilings import Ceilings, GatherPoint

FIGURES = (
    "ms", "ms_low", "ms_high", "p95_ms", "warm_ms", "gflops_per_s", "gb_per_s", "roofline_ms",
    "roofline_share", "bound",
)  # fmt: skip
"""What a candidate that failed has none of."""


def values(outcome: Outcome, ceilings: Ceilings | None) -> dict[str, Any]:
    """Return the row of a candidate, JSON-ready: settings that do not matter to it are None.

    Args:
        outcome: Of it.
        ceilings: Of the machine; None where they are not known.

    """
    operator, setting = outcome.candidate.operator, outcome.candidate.setting
    work = operator.work(setting)
    row: dict[str, Any] = {
        "operator": operator.name,
        **setting.only((*operator.fields, "threads")),
        "flops": work.flops,
        "bytes": work.bytes,
        "lines": work.lines,
        **dict.fromkeys(FIGURES),
        "error": outcome.error,
    }
    if outcome.cold is None or outcome.warm is None:
        return row
    cold_s = outcome.cold.median
    low, high = outcome.cold.interval
    row |= {
        "ms": cold_s * 1e3,
        "ms_low": low * 1e3,
        "ms_high": high * 1e3,
        "p95_ms": outcome.cold.percentile(95)[0] * 1e3,
        "warm_ms": outcome.warm.median * 1e3,
        "gflops_per_s": work.flops / cold_s / 1e9,
        "gb_per_s": work.bytes / cold_s / 1e9,
    }
    if ceilings is not None:
        least_s, bound = least(work, with_threads(ceilings, setting.threads))
        row |= {
            "roofline_ms": least_s * 1e3,
            "roofline_share": least_s / cold_s,
            "bound": bound,
        }
    return row


def with_threads(ceilings: Ceilings, threads: int) -> Ceilings:
    """Return the ceilings of fewer threads of the same machine.

    Of more than were measured there are no others: the nearest count below is taken. Rows at random
    take longer as the longest tables' shortest rows do.
    """
    measured = [count for count in ceilings.copy if count <= threads]
    if threads == ceilings.threads or not measured:
        return ceilings
    nearest = max(measured)
    rows_per_s = ceilings.gather_by_threads
    slower = rows_per_s[ceilings.threads] / rows_per_s[nearest]
    return replace(
        ceilings,
        threads=nearest,
        gather=tuple(
            GatherPoint(point.row_bytes, point.table_bytes, point.row_s * slower)
            for point in ceilings.gather
        ),
    )
