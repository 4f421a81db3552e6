"""Which rows train, which validate, which test: pure functions of the number of rows.

Protocols:
    kaggle         the original's: seven equal days, the first ones a row longer where seven does
                   not divide; six days train, the first half of the seventh tests, the second
                   half validates
    days           a file a day: all but the last day train, the last is halved likewise (as the
                   original does with the 24 days of the Terabyte log)
    chronological  train, then validation, then test, in the order of the log
    random         each run of 65,536 rows is divided at random in the same proportions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import ConfigError, unknown

SPLITS: tuple[str, ...] = ("train", "validation", "test")
Protocol = Literal["kaggle", "days", "chronological", "random", "time", "group", "stratified"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
OF_COLUMNS = ("time", "group", "stratified")
"""Protocols that look at columns of a table, see `dlrm.data.division`."""
DAYS = 7
_RUN_ROWS = 1 << 16

UNUSED = -1
Rows = slice | NDArray[np.intp]
Places = NDArray[np.int8]
"""(n,) the split of each row, a place in SPLITS; UNUSED where it is in none"""


def sizes(rows: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return rows of train, validation and test.

    Args:
        rows: Rows to divide.
        shares: Three fractions that sum to 1, or three counts that sum to at most `rows`; with
            counts, the rows beyond them are left out.

    """
    shown = "/".join(f"{share:g}" for share in shares)
    if len(shares) != len(SPLITS) or any(not share >= 0 for share in shares):
        raise ConfigError(f"fractions are {shown}, expected train/validation/test, none below 0")
    if abs(sum(shares) - 1) < 1e-9:
        bounds = [round(rows * sum(shares[: i + 1])) for i in range(len(shares))]
        return tuple(b - a for a, b in pairwise([0, *bounds]))
    if sum(shares) > 1 and all(share == int(share) for share in shares):
        if sum(shares) > rows:
            raise ConfigError(f"{shown} rows are asked for, but the log has {rows}")
        return tuple(int(share) for share in shares)
    raise ConfigError(f"fractions are {shown}, expected three that sum to 1, or three row counts")


def kaggle_sizes(rows: int) -> tuple[int, int, int]:
    """Return rows of train, validation and test under the original's Kaggle protocol."""
    # The first rows % 7 days are a row longer; the last one never is.
    return last_day_sizes(rows, rows // DAYS)


def last_day_sizes(rows: int, last_day: int) -> tuple[int, int, int]:
    """Return rows of train, validation and test when the last day is held out."""
    test = last_day - last_day // 2
    return rows - last_day, last_day - test, test


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each row goes."""

    rows: int
    """Rows of the whole log."""
    sizes: dict[str, int]
    """Rows of each split, in the order in which the protocol lays them out."""
    seed: int | None = None
    """Seed of a random split; None where splits are contiguous."""

    def places(self, start: int, stop: int) -> Places:
        """Return the split of rows start to stop."""
        if self.seed is None:
            ends = np.cumsum([*self.sizes.values()])
            numbers = np.searchsorted(ends, np.arange(start, stop), side="right")
        else:
            numbers = np.concatenate([np.empty(0, np.int8), *self._runs(start, stop, self.seed)])
        return np.array([*map(SPLITS.index, self.sizes), UNUSED], np.int8)[numbers.astype(np.intp)]

    def _runs(self, start: int, stop: int, seed: int) -> Iterator[NDArray[np.int8]]:
        """Yield the split number of rows start to stop, run by run; len(sizes) means left out."""
        left = [*self.sizes.values(), self.rows - sum(self.sizes.values())]
        for run, begin in enumerate(range(0, min(self.rows, stop), _RUN_ROWS)):
            rows = min(_RUN_ROWS, self.rows - begin)
            bounds = [sum(left[:i]) * rows // (self.rows - begin) for i in range(len(left) + 1)]
            counts = [b - a for a, b in pairwise(bounds)]
            left = [have - take for have, take in zip(left, counts, strict=True)]
            if begin + rows > start:
                labels = np.repeat(np.arange(len(left), dtype=np.int8), counts)
                labels = np.random.default_rng([seed, run]).permutation(labels)
                yield labels[max(start - begin, 0) : stop - begin]


def pieces(where: Places) -> list[tuple[str, Rows]]:
    """Return the names of splits, and the numbers of the rows that are in each, rising."""
    return [(name, np.flatnonzero(where == number)) for number, name in enumerate(SPLITS)]


def plan(
    protocol: str, rows: int, *, fractions: Sequence[float], seed: int, days: Sequence[int] = ()
) -> Plan:
    """Return where each of `rows` rows goes; `days` are the rows of each day, for `days`."""
    if protocol not in PROTOCOLS:
        raise unknown("split", protocol, PROTOCOLS)
    if protocol in OF_COLUMNS:
        raise ConfigError(f"split {protocol} is for tables, not for logs of a known format")
    if protocol == "days" and len(days) < 2:
        problem = f"split days needs a file a day, two or more, but there is {len(days) or 'none'}"
        raise ConfigError(f"{problem}; use kaggle, chronological or random")
    if protocol in ("kaggle", "days"):
        held_out = kaggle_sizes(rows) if protocol == "kaggle" else last_day_sizes(rows, days[-1])
        train, validation, test = held_out
        return Plan(rows, {"train": train, "test": test, "validation": validation})
    named = dict(zip(SPLITS, sizes(rows, fractions), strict=True))
    return Plan(rows, named, seed if protocol == "random" else None)
