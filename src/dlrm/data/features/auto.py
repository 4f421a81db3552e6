"""`--features auto`: which log counts, target means and crosses are worth having.

Only training rows take part. They are cut in two halves; a logistic regression of the plain columns
is fitted on each half and predicts the other. A candidate is a column of keys (buckets of a log
count or of a target mean, values of a cross), and its worth is what one Newton step per key,
fitted on the rows of one half, gains in log loss on the other:

    d_k = sum_k (y - p) / (sum_k p (1 - p) + ridge)        gain = mean of loss(p) - loss(p + d_k)

A candidate stays if its gain is more than `LEAST_ERRORS` standard errors, for the best few.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.data.encoded import Lists, take
from dlrm.data.features.category import Category
from dlrm.data.features.column import CROSS_NAME, ENCODINGS, Cross, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.fit import FittingRows, fit
from dlrm.data.features.inputs import assemble, interleave
from dlrm.data.features.texts import as_texts
from dlrm.data.vocabulary import distinct

MOST_ROWS = 200_000
"""Training rows that are looked at."""
BUCKETS = 32
LEAST_ERRORS = 4.0
"""Far enough out that among a thousand worthless candidates hardly one passes."""
MOST_CROSSES = 12
RIDGE = 2.0
_EPOCHS, _BATCH, _RATE = 4, 256, 0.05

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
    codes = {name: distinct(as_texts(rows.frame(name)[name]))[1].astype(np.int64) for name in names}
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
    p = 1 / (1 + np.exp(-logits))
    size = int(keys.max()) + 1
    steps = np.zeros(len(keys))
    for half in (halves, ~halves):
        slope = np.bincount(keys[half], (clicks - p)[half], minlength=size)
        curve = np.bincount(keys[half], (p * (1 - p))[half], minlength=size)
        steps[~half] = (slope / (curve + RIDGE))[keys[~half]]
    gains = _loss(logits, clicks) - _loss(logits + steps, clicks)
    return Gain(float(gains.mean()), float(gains.std() / len(gains) ** 0.5))


def _loss(logits: NDArray[np.float64], clicks: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.logaddexp(0, logits) - clicks * logits


def _ranked(numbers: NDArray[np.float32]) -> Keys:
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BUCKETS + 1)[1:-1]))
    return np.searchsorted(edges, numbers, side="right").astype(np.int64)


def _base(rows: FittingRows, schema: Columns, halves: Halves) -> NDArray[np.float64]:
    """Return what a logistic regression of the other half says of each row, as logits."""
    clicks = rows.labels
    features = [feature for feature, _ in fit(rows, _plain(schema))]
    names = tuple(dict.fromkeys(name for feature in features for name in feature.columns))
    frame = rows.frame(*names)
    parts = [feature.encode(frame) for feature in features]
    dense = assemble(parts, len(clicks)).dense
    once = np.ones(len(clicks), np.int64)
    ids = [column for part in parts for column in part.ids]
    flat, offsets = interleave(
        [column if isinstance(column, tuple) else (column, once) for column in ids], len(clicks)
    )
    sizes = [
        model_input.num_embeddings
        for feature in features
        for model_input in feature.inputs()
        if model_input.num_embeddings
    ]
    starts = np.cumsum([0, *sizes])
    tables = np.repeat(np.tile(np.arange(len(sizes)), len(clicks)), np.diff(offsets))
    bags = Lists(flat + starts[tables].astype(np.int32) if sizes else flat, offsets)
    logits = np.empty(len(clicks))
    for half in (halves, ~halves):
        model = _Logistic(dense, bags, len(sizes), int(starts[-1]))
        model.train(np.flatnonzero(half), clicks)
        logits[~half] = model.logits(np.flatnonzero(~half))
    return logits


def _plain(schema: Columns) -> Columns:
    """Return the schema without crosses and without what is counted beside values.

    Numbers are as they are or ranked, because the regression makes nothing of their positions.
    """
    columns = tuple(
        replace(
            column,
            scale="quantile" if column.scale == "piecewise" else column.scale,
            values=replace(column.values, embed=True, **dict.fromkeys(ENCODINGS, False)),
        )
        for column in schema.columns
    )
    return replace(schema, columns=columns, crosses=())


class _Logistic:
    """A logistic regression over numbers and bags, trained by Adagrad.

    In numpy, because what learns in torch stands on a higher floor than the data.
    """

    def __init__(self, dense: NDArray[np.float32], bags: Lists, tables: int, rows: int):
        ones = np.ones((len(dense), 1), np.float32)
        self._dense = np.concatenate([dense, ones], axis=1)
        self._bags, self._tables = bags, tables
        self._weights, self._squares = np.zeros(rows), np.full(rows, 1e-8)
        self._linear = np.zeros(self._dense.shape[1])
        self._linear_squares = np.full(self._dense.shape[1], 1e-8)

    def train(self, rows: NDArray[np.intp], clicks: NDArray[np.uint8]) -> None:
        """Fit to some rows."""
        rng = np.random.default_rng(0)
        for _ in range(_EPOCHS):
            order = rng.permutation(rows)
            for start in range(0, len(order), _BATCH):
                self._step(order[start : start + _BATCH], clicks)

    def logits(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the logits of some rows (n,)."""
        logits = self._dense[rows] @ self._linear
        if self._tables:
            ids, offsets = take(self._bags, self._tables, rows)
            summed = np.concatenate([[0.0], np.cumsum(self._weights[ids])])
            logits += np.diff(summed[offsets[:: self._tables]])
        return logits

    def _step(self, rows: NDArray[np.intp], clicks: NDArray[np.uint8]) -> None:
        wrong = (1 / (1 + np.exp(-self.logits(rows))) - clicks[rows]) / len(rows)
        slope = wrong @ self._dense[rows]
        self._linear_squares += slope**2
        self._linear -= _RATE * slope / np.sqrt(self._linear_squares)
        if not self._tables:
            return
        ids, offsets = take(self._bags, self._tables, rows)
        touched, place = np.unique(ids, return_inverse=True)
        lengths = np.diff(offsets[:: self._tables])
        slopes = np.bincount(place, np.repeat(wrong, lengths), minlength=len(touched))
        self._squares[touched] += slopes**2
        self._weights[touched] -= _RATE * slopes / np.sqrt(self._squares[touched])
