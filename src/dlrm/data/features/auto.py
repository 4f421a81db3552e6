"""`--features auto`: which log counts, target means and crosses are worth having.

Only training rows take part. They are cut in two halves; a sum of one number for each value of the
plain columns, buckets of numbers too, is fitted to the logits of each half, column by column, and
predicts the other. A candidate is a column of keys (buckets of a log
count or of a target mean, values of a cross), and its worth is what one Newton step per key,
fitted on the rows of one half, gains in log loss on the other:

    d_k = sum_k (y - p) / (sum_k p (1 - p) + ridge)        gain = mean of loss(p) - loss(p + d_k)

A candidate stays if its gain is more than `LEAST_ERRORS` standard errors, for the best few.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.data.features.category import Category
from dlrm.data.features.column import CROSS_NAME, LISTS, Column, Cross, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.list import split_lists
from dlrm.data.features.rows import as_series
from dlrm.data.vocabulary import distinct

MOST_ROWS = 200_000
"""Training rows that are looked at."""
BUCKETS = 32
LEAST_ERRORS = 4.0
"""Standard errors that a candidate must gain: among a thousand worthless ones hardly one does."""
MOST_CROSSES = 12
RIDGE = 2.0
BASE_RIDGE = 10.0
"""L2 of the single columns' sums, which so know as little of rare values as embeddings do after a
few epochs."""
_PASSES = 3

Keys = NDArray[np.int64]
Halves = NDArray[np.bool_]
Worth = Callable[[NDArray[np.int64]], "Gain"]


@dataclass(frozen=True, slots=True)
class Gain:
    """What a candidate gains in log loss, and the standard error of that."""

    mean: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether it is more than luck."""
        return self.mean > LEAST_ERRORS * self.error

    @property
    def why(self) -> str:
        """The reason, in words."""
        return f"lowers log loss by {self.mean:.4f} ± {self.error:.4f} on held-out training rows"


def choose(rows: FittingRows, schema: Columns, *, seed: int = 0) -> Columns:
    """Return a schema with what helps."""
    rng = np.random.default_rng(seed)
    if len(rows.train) > MOST_ROWS:
        chosen = np.sort(rng.choice(len(rows.train), MOST_ROWS, replace=False))
        rows = replace(rows, train=rows.train[chosen], labels=rows.labels[chosen])
    clicks = rows.labels
    halves = rng.permutation(len(clicks)) % 2 == 0
    logits = _base(rows, schema, halves)

    with terminal.progress() as bar:
        task = bar.add_task("Trying features", total=None)

        def worth(keys: Keys) -> Gain:
            bar.advance(task)
            return _worth(keys, logits, clicks, halves)

        columns = []
        for column in schema.columns:
            if column.kind == "category":
                frame = rows.frame(column.name)
                values, why = _beside(column.values, (column.name,), frame, clicks, worth)
                why = "; ".join(["", *why])
                column = replace(  # noqa: PLW2901 - the column, as it is from here on
                    column, values=values, why=f"{column.why}{why}"
                )
            columns.append(column)
        crosses = _crosses(rows, schema, worth)
    return replace(schema, columns=tuple(columns), crosses=(*schema.crosses, *crosses))


def _beside(
    values: Values,
    names: tuple[str, ...],
    frame: pl.DataFrame,
    clicks: NDArray[np.uint8],
    worth: Worth,
    least: float = 0.0,
) -> tuple[Values, list[str]]:
    """Return what becomes of a category, with the numbers beside it that help, and the reasons.

    Those of a cross must gain more than `least`, what the cross gains itself: a count may stand for
    the value that it is a count of.
    """
    settings = replace(values, log_count=True, target_mean=True)
    _, training = Category.fit(names, settings, frame, clicks, seed=0)
    reasons = []
    for (name, numbers), field in zip(training.items(), ("log_count", "target_mean"), strict=True):
        gain = worth(_ranked(numbers))
        if gain.sure and gain.mean > least and not getattr(values, field):
            values = replace(values, **{field: True})
            reasons.append(f"its {name.removeprefix(CROSS_NAME.join(names)).strip()} {gain.why}")
    return values, reasons


def _crosses(rows: FittingRows, schema: Columns, worth: Worth) -> list[Cross]:
    names = [column.name for column in schema.columns if column.kind == "category"]
    codes = {name: distinct(rows.texts(name))[1].astype(np.int64) for name in names}
    have = {frozenset(cross.columns) for cross in schema.crosses}
    gains: list[tuple[Gain, tuple[str, str]]] = []
    for left, right in combinations(names, 2):
        if frozenset((left, right)) in have:
            continue
        pair = codes[left] * (codes[right].max() + 1) + codes[right]
        gain = worth(np.unique(pair, return_inverse=True)[1].astype(np.int64))
        if gain.sure:
            gains.append((gain, (left, right)))
    gains.sort(key=lambda gained: -gained[0].mean)
    crosses = []
    for gain, pair in gains[:MOST_CROSSES]:
        frame = rows.frame(*pair)
        values, why = _beside(Values(min_count=2), pair, frame, rows.labels, worth, gain.mean)
        crosses.append(Cross(columns=pair, values=values, why="; ".join([gain.why, *why])))
    return crosses


def _worth(
    keys: Keys, logits: NDArray[np.float64], clicks: NDArray[np.uint8], halves: Halves
) -> Gain:
    """Return what a Newton step per key gains, fitted on one half and judged on the other."""
    steps = np.zeros(len(keys))
    for half in (halves, ~halves):
        steps[~half] = _steps(keys[half], logits[half], clicks[half], int(keys.max()) + 1)[
            keys[~half]
        ]
    gains = _loss(logits, clicks) - _loss(logits + steps, clicks)
    return Gain(float(gains.mean()), float(gains.std() / len(gains) ** 0.5))


def _steps(
    keys: Keys,
    logits: NDArray[np.float64],
    clicks: NDArray[np.uint8],
    size: int,
    known: float | NDArray[np.float64] = 0.0,
    ridge: float = RIDGE,
) -> NDArray[np.float64]:
    """Return the Newton step of each of `size` keys, whose numbers are `known` so far."""
    p = 1 / (1 + np.exp(-logits))
    slope = np.bincount(keys, clicks - p, minlength=size)
    curve = np.bincount(keys, p * (1 - p), minlength=size)
    return (slope - ridge * known) / (curve + ridge)


def _loss(logits: NDArray[np.float64], clicks: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.logaddexp(0, logits) - clicks * logits


def _ranked(numbers: NDArray[np.floating[Any]]) -> Keys:
    """Return the bucket of each number (n,); NaN has the last one."""
    known = numbers[~np.isnan(numbers)]
    edges = (
        np.unique(np.quantile(known, np.linspace(0, 1, BUCKETS + 1)[1:-1])) if len(known) else []
    )
    return np.searchsorted(edges, numbers, side="right").astype(np.int64) + np.isnan(numbers)


def _base(rows: FittingRows, schema: Columns, halves: Halves) -> NDArray[np.float64]:
    """Return the logit of each row that the other half's sums give it."""
    columns = [_keys(rows, schema, column) for column in schema.used()]
    clicks, logits = rows.labels, np.zeros(len(halves))
    for half in (halves, ~halves):
        sums = np.zeros(len(halves))
        numbers = [np.zeros(int(keys.max(initial=0)) + 1) for keys, _ in columns]
        for _ in range(_PASSES):
            for (keys, owners), known in zip(columns, numbers, strict=True):
                fitted = half[owners]
                at = owners[fitted]
                steps = _steps(keys[fitted], sums[at], clicks[at], len(known), known, BASE_RIDGE)
                # A list moves by the mean of its values.
                moved = np.bincount(owners, steps[keys], len(halves))
                sums += moved / np.maximum(np.bincount(owners, minlength=len(halves)), 1)
                known[:] += steps
        logits[~half] = sums[~half]
    return logits


def _keys(rows: FittingRows, schema: Columns, column: Column) -> tuple[Keys, NDArray[np.intp]]:
    """Return the keys of a column (L,), and the row of each."""
    if column.kind in LISTS:
        values, lengths = split_lists(rows.frame(column.name)[column.name], column.separator)
        codes = distinct(as_series(values))[1]
        return codes.astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)
    every = np.arange(len(rows.labels))
    if column.kind == "number":
        return _ranked(rows.numbers(column.name, schema.reading(column)).to_numpy()), every
    return distinct(rows.texts(column.name))[1].astype(np.int64), every
