"""Small Criteo logs, and what preparing them must give, in plain Python."""

import gzip
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlrm.data.sources.criteo import CATEGORIES, INTEGERS, CriteoSource

Row = tuple[str, ...]


def rows(*, min_size: int = 1, max_size: int = 40) -> st.SearchStrategy[list[Row]]:
    """Return logs of rows of 40 texts, with few distinct values so that they come again."""
    count = st.sampled_from(["", "", "0", "1", "-1", "-3", "7", "65535", "123456789012"])
    value = st.sampled_from(
        ["", "0", "00000000", "7", "ffffffff", "FFFFFFFF", "80000000", "deadbeef", "1a", "c"]
    )
    # Most columns are one value repeated: 39 drawn cells a row would be slow to shrink.
    short = st.tuples(st.sampled_from("01"), count, count, count, value, value, value, value).map(
        lambda cells: cells
    )

    def widen(cells: tuple[str, ...]) -> Row:
        label, a, b, c, *values = cells
        return (label, a, b, *(c,) * 11, *values, *(values[3],) * 22)

    return st.lists(short.map(widen), min_size=min_size, max_size=max_size)


def log(count: int, seed: int = 0) -> list[Row]:
    """Return `count` rows drawn with a seed, with a long tail of values."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        counts = ["" if rng.random() < 0.3 else str(int(rng.pareto(1) * 4) - 1) for _ in INTEGERS]
        values = [
            "" if rng.random() < 0.1 else f"{int(rng.pareto(0.7) * 3) * 2654435761 % 2**32:08x}"
            for _ in CATEGORIES
        ]
        drawn.append((str(int(rng.random() < 0.3)), *counts, *values))
    return drawn


def text(log: list[Row], *, ends: str = "\n", last: bool = True) -> bytes:
    """Return a log as raw text."""
    return (ends.join("\t".join(row) for row in log) + (ends if last else "")).encode()


def write(path: Path, log: list[Row], *, ends: str = "\n", last: bool = True) -> Path:
    """Write a log as raw text; compressed if the name ends in .gz."""
    content = text(log, ends=ends, last=last)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def source(path: Path, log: list[Row], chunk_bytes: int = 1 << 20) -> CriteoSource:
    """Write a log and return its source."""
    return CriteoSource(write(path, log), chunk_bytes=chunk_bytes)


@dataclass(frozen=True)
class Expected:
    """What a log must become."""

    dense: NDArray[np.float32]
    ids: NDArray[np.int32]
    labels: NDArray[np.uint8]
    rows: tuple[int, ...]


def reference(
    log: list[Row],
    *,
    ids: str = "appearance",
    min_count: int = 1,
    max_rows_per_table: int | None = None,
) -> Expected:
    """Prepare a log with dictionaries, a row at a time."""

    def value(cell: str) -> int | None:
        if max_rows_per_table:
            return int(cell or "0", 16) % max_rows_per_table
        return int(cell, 16) if cell else None

    columns, tables = [], []
    for column in range(14, 40):
        values = [value(row[column]) for row in log]
        counts = Counter(values)  # keeps the order of first appearance
        order = [each for each in counts if counts[each] >= min_count]
        if ids == "frequency":
            order.sort(key=lambda each: -counts[each])
        known = {each: number for number, each in enumerate(order)}
        columns.append([known.get(each, len(known)) for each in values])
        tables.append(len(known) + 1)
    dense = [[math.log1p(max(0, int(cell or "0"))) for cell in row[1:14]] for row in log]
    return Expected(
        np.array(dense, np.float32).reshape(-1, 13),
        np.array(columns, np.int32).T,
        np.array([int(row[0]) for row in log], np.uint8),
        tuple(tables),
    )
