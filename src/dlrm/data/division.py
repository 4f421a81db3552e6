"""Which rows of a table train, validate and test.

Beside the protocols of `dlrm.data.split`, which know the number of rows alone:

    time         the oldest rows train, the newest test; equal times are in one split
    group        all rows of a value, such as a user, are in one split, at random
    stratified   at random, each split with its share of every class
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.columns import Columns
from dlrm.data.features.texts import as_numbers, time_reading
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.split import SPLITS, TEST, TRAIN, UNUSED, VALIDATION, Places, Protocol, plan, sizes
from dlrm.errors import ConfigError


def divide(
    raw: RawTable,
    schema: Columns,
    labels: NDArray[np.number],
    bad: NDArray[np.bool_],
    config: PrepareConfig,
    *,
    default: Protocol = "random",
) -> tuple[Places, tuple[str, ...]]:
    """Divide the rows of a table; return also what to say: from when to when, what is doubtful.

    Args:
        raw: n rows.
        schema: What the columns are.
        labels: (n, K)
        bad: (n,) rows that are left out.
        config: How they are prepared.
        default: The protocol where none was chosen.

    Raises:
        ConfigError: They cannot be divided so.
        InputError: A row has no time to divide by; names it.

    """
    protocol = config.protocol(default)
    if protocol == "stratified" and schema.task == "regression":
        raise ConfigError("split stratified is for classes, but the task is regression")
    named = np.concatenate(
        [
            np.full(part.rows, SPLITS.index(part.split) if part.split else UNUSED)
            for part in raw.parts
        ]
    )
    where = np.full(raw.rows, UNUSED, np.int8)
    rows, fractions = np.flatnonzero(~bad), config.fractions
    if not (named == UNUSED).all():
        where[rows] = named[rows]
        if (named == VALIDATION).any():
            return where, ()
        # The files have no validation part: it comes out of the training file.
        rows = rows[named[rows] == TRAIN]
        held = fractions[1] / max(fractions[0] + fractions[1], 1e-9)
        fractions = (1 - held, held, 0.0)
        where[rows] = UNUSED
    if protocol == "time":
        seconds = _times(raw, str(config.time), bad, strict=config.bad_rows == "error")
        rows = rows[~np.isnan(seconds[rows])]
        where[rows] = _by_time(seconds[rows], fractions)
        return where, _periods(raw, str(config.time), seconds, where)
    if protocol == "group":
        name = str(config.group)
        groups = _groups(raw, name)
        where[rows] = _by_group(name, groups[rows], fractions, config.seed)
        return where, _shares_of_groups(name, groups, where)
    if protocol == "stratified":
        _, classes = np.unique(labels[rows], axis=0, return_inverse=True)
        for number in range(classes.max(initial=-1) + 1):
            same = rows[classes.ravel() == number]
            where[same] = plan("random", len(same), fractions=fractions, seed=config.seed)
    else:
        days = _days(raw, bad) if (named == UNUSED).all() else ()
        where[rows] = plan(protocol, len(rows), fractions=fractions, seed=config.seed, days=days)
    alone = len(set(where[rows].tolist())) == 1
    return where, () if alone else tuple(_doubts(raw, schema, protocol, ~bad))


def _by_time(seconds: NDArray[np.float64], fractions: Sequence[float]) -> Places:
    """Divide rows (n,) by their times: a split begins where the time changes."""
    order = np.argsort(seconds, kind="stable")
    rising = seconds[order]
    changes = [*(np.flatnonzero(np.diff(rising)) + 1), len(rising)]
    where = np.full(len(rising), UNUSED, np.int8)
    begin = end = 0
    for number, size in enumerate(sizes(len(rising), fractions)):
        end += size
        nearest = int(min(changes, key=lambda change: abs(change - end))) if end else 0
        where[order[begin:nearest]] = number
        begin = max(begin, nearest)
    if fractions[1] and not (where == VALIDATION).any():
        # Of two days the later one chooses the model: nothing is left to test it.
        where[where == TEST] = VALIDATION
    return where


def _by_group(
    name: str, groups: NDArray[np.int64], fractions: Sequence[float], seed: int
) -> Places:
    """Divide rows (n,) by the numbers of their groups, at random.

    Each split gets a group; of two groups one trains, and the other chooses the model.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(groups)
    parts = [number for number, share in enumerate(fractions) if share][: len(counts)]
    if len(counts) == 1 < sum(share > 0 for share in fractions):
        raise ConfigError(
            f"split group: {name} has one value in all rows, which cannot be in several splits; "
            "divide by another column"
        )
    order = np.random.default_rng(seed).permutation(len(counts))
    middles = np.cumsum(counts[order]) - counts[order] / 2
    ends = np.cumsum(sizes(len(groups), fractions))
    splits = np.searchsorted(ends, middles, side="right")
    of_group = np.empty(len(counts), np.int8)
    of_group[order] = np.where(splits < len(SPLITS), splits, UNUSED)
    for number in parts:
        if not (of_group == number).any():
            # Few groups: the smallest one of the split that has most of them.
            most = np.argmax(np.bincount(of_group[of_group >= 0], minlength=len(SPLITS)))
            others = np.flatnonzero(of_group == most)
            of_group[others[np.argmin(counts[others])]] = number
    return of_group[groups]


def _shares_of_groups(name: str, groups: NDArray[np.int64], where: Places) -> tuple[str, ...]:
    """Return how many groups and rows each split has."""
    notes = []
    for number, split in enumerate(SPLITS):
        rows = where == number
        values = len(np.unique(groups[rows]))
        values_of = "value of" if values == 1 else "values of"
        notes.append(f"{split}: {int(rows.sum()):,} rows, {values:,} {values_of} {name}")
    return tuple(notes)


def _groups(raw: RawTable, name: str) -> NDArray[np.int64]:
    """Return the number of each row's group (n,); a row without one is a group of its own."""
    raw.check_column(name, "column of groups")
    if (dtype := raw.types[name]).is_nested():
        raise ConfigError(f"the column of groups {name} holds {dtype}, not one value a row")
    texts = raw.texts(name)
    numbers = texts.rank("dense").cast(pl.Int64).to_numpy().astype(np.float64)
    alone = np.isnan(numbers)
    numbers[alone] = np.arange(alone.sum()) + np.nanmax(numbers, initial=0) + 1
    return np.unique(numbers, return_inverse=True)[1]


def _times(
    raw: RawTable, name: str, bad: NDArray[np.bool_], *, strict: bool
) -> NDArray[np.float64]:
    """Return the time of each row (n,), NaN where it has none."""
    raw.check_column(name, "column of times")
    values = raw.column(name)
    if values.dtype.is_nested():
        raise ConfigError(f"the column of times {name} holds {values.dtype}, not one time a row")
    readings = [as_numbers(values), as_numbers(values, time_reading(values))]
    numbers, _ = min(readings, key=lambda reading: reading[0].null_count())
    missing = (numbers.is_null().to_numpy() & ~bad).nonzero()[0]
    if len(missing) and (strict or len(missing) == len(numbers)):
        row = int(missing[0])
        shown = "is missing" if values[row] is None else f'is "{values[row]}"'
        expected = "expected a time to divide the rows by (or --bad-rows skip)"
        raise raw.error(row, name, f"{shown}, {expected}")
    return numbers.to_numpy().astype(np.float64)


def _periods(
    raw: RawTable, name: str, seconds: NDArray[np.float64], where: Places
) -> tuple[str, ...]:
    """Return from when to when each split goes, as the rows write it."""
    values, notes = raw.column(name), []
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(where == number)
        if not len(rows):
            notes.append(f"{split}: no rows, too few different times in {name}")
            continue
        first, last = rows[seconds[rows].argmin()], rows[seconds[rows].argmax()]
        notes.append(
            f"{split}: {len(rows):,} rows, {name} from {values[int(first)]} to {values[int(last)]}"
        )
    return tuple(notes)


def _doubts(
    raw: RawTable, schema: Columns, protocol: Protocol, good: NDArray[np.bool_]
) -> Sequence[str]:
    """Return what is doubtful about dividing rows that have times without looking at these."""
    if protocol not in ("random", "stratified", "chronological"):
        return ()
    for column in schema.columns:
        if not column.time:
            continue
        numbers, _ = raw.numbers(column.name, schema.reading(column))
        seconds = numbers.to_numpy()[good]
        seconds = seconds[~np.isnan(seconds)]
        advice = f"--time {column.name} divides by time"
        if protocol != "chronological":
            return (
                f"Rows have times ({column.name}), but are divided at random: what is learned of "
                f"the future makes scores too good; {advice}",
            )
        if (np.diff(seconds) < 0).any():
            return (
                f"The split is chronological, but rows are not in order of {column.name}: {advice}",
            )
    return ()


def _days(raw: RawTable, bad: NDArray[np.bool_]) -> list[int]:
    """Return the good rows of each file."""
    days, start = list[int](), 0
    for part in raw.parts:
        if part.first == 1:
            days.append(0)
        days[-1] += int((~bad[start : start + part.rows]).sum())
        start += part.rows
    return days
