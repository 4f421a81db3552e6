"""`dlrm bench diff`: what got slower between two files of results."""

from pathlib import Path
from typing import Annotated

import tyro

from dlrm.bench.diff import diff as compare
from dlrm.commands.bench.diff_result import DiffResult
from dlrm.errors import ConfigError


def bench_diff(
    before: Annotated[Path, tyro.conf.Positional],
    after: Annotated[Path, tyro.conf.Positional],
    *,
    tolerance: float = 0.05,
    across_machines: bool = False,
    across_schemas: bool = False,
) -> DiffResult:
    """Say what got slower between two files of results, and which operator did it.

    Rows are compared that measure the same: the same suite and equal settings. Where the
    intervals of a figure overlap there is no verdict. A file may hold a measurement several
    times; then the middle one counts, and the interval is the spread of all.

    The exit status is 1 where one of our figures got slower by more than the tolerance and the
    intervals do not overlap, or where something fails that could be measured before.

    Args:
        before: Rows of results, as --out of the other bench commands writes them.
        after: Rows of results to set beside them.
        tolerance: Share of its time by which a figure may get slower.
        across_machines: Compare rows of different hardware too.
        across_schemas: Compare rows of different versions of this format too.

    Raises:
        InputError: A file holds something else than rows, or nothing.
        ConfigError: They are of different machines or schemas, or measure nothing in common.

    """
    if tolerance < 0:
        raise ConfigError(f"tolerance is {tolerance}, expected 0 or more")
    found = compare(before, after, across_machines=across_machines, across_schemas=across_schemas)
    return DiffResult(before=before, after=after, tolerance=tolerance, found=found)
