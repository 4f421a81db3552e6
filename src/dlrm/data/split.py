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

from collections.abc import Sequence
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

TRAIN, VALIDATION, TEST, UNUSED = 0, 1, 2, -1
"""Places in SPLITS, and that of a row which is in none."""
Rows = slice | NDArray[np.intp]
Places = NDArray[np.int8]
"""(n,) the split of each row: TRAIN, VALIDATION, TEST or UNUSED"""


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


def pieces(where: Places) -> list[tuple[str, Rows]]:
    """Return the names of splits, and the numbers of the rows that are in each, rising."""
    return [(name, np.flatnonzero(where == number)) for number, name in enumerate(SPLITS)]


def plan(
    protocol: str, rows: int, *, fractions: Sequence[float], seed: int, days: Sequence[int] = ()
) -> Places:
    """Return the split of each of `rows` rows; `days` are the rows of each day, for `days`."""
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
        return np.repeat(np.array([TRAIN, TEST, VALIDATION], np.int8), [train, test, validation])
    numbers = np.array([TRAIN, VALIDATION, TEST, UNUSED], np.int8)
    left = [*sizes(rows, fractions), 0]
    left[-1] = rows - sum(left)
    if protocol != "random":
        return np.repeat(numbers, left)
    runs = [np.empty(0, np.int8)]
    for run, begin in enumerate(range(0, rows, _RUN_ROWS)):
        length = min(_RUN_ROWS, rows - begin)
        bounds = [sum(left[:i]) * length // (rows - begin) for i in range(len(left) + 1)]
        counts = [b - a for a, b in pairwise(bounds)]
        left = [have - take for have, take in zip(left, counts, strict=True)]
        runs.append(np.random.default_rng([seed, run]).permutation(np.repeat(numbers, counts)))
    return np.concatenate(runs)
