"""How much of some rows a model knows: values that training never saw, and missing ones.

Counted on ids that are there anyway: a value without a row of its own has the last id of its table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.number import Number
from dlrm.data.features.rows import Rows, as_series

FACTOR, MARGIN, ERRORS = 2.0, 0.1, 2.0
"""A share is too large above `FACTOR` times that of training, `MARGIN` and `ERRORS` standard errors
more: of a few rows most must be unseen."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The shares of a column's missing values and of those that training did not see."""

    name: str
    rows: int = 0
    """Rows of which these are shares."""
    missing: float | None = None
    unseen: float | None = None
    """Share of values that are new, or were too rare in training; None for numbers and hashes."""
    trained_missing: float | None = None
    trained_unseen: float | None = None

    @property
    def excess(self) -> float:
        """Excess of the worse of both shares over training's."""
        pairs = (self.missing, self.trained_missing), (self.unseen, self.trained_unseen)
        return max(((now or 0.0) - (then or 0.0) for now, then in pairs), default=0.0)

    def warnings(self) -> list[str]:
        """Return what is much larger than in training."""
        pairs = {
            "unseen in training": (self.unseen, self.trained_unseen),
            "missing": (self.missing, self.trained_missing),
        }
        return [
            f"{self.name}: {now:.1%} of the values are {what} (there {then or 0.0:.1%})"
            for what, (now, then) in pairs.items()
            if now is not None and now > self._bound(then or 0.0)
        ]

    def _bound(self, then: float) -> float:
        """Return the largest share that is no wonder beside one of training."""
        p = min(max(then, 0.05), 0.95)
        return FACTOR * then + MARGIN + ERRORS * (p * (1 - p) / max(self.rows, 1)) ** 0.5

    def to_dict(self) -> dict[str, Any]:
        """Return the shares JSON-ready."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}


class Coverage:
    """Counts over rows that come piece by piece."""

    def __init__(self, features: Features, trained: Iterable[Mapping[str, Any]] = ()):
        self.rows = 0
        self._trained = {values["name"]: values for values in trained}
        names: dict[int, str] = {}
        for feature, model_input in features.inputs:
            # The first input of a number, and the last one of a category, which is its id.
            if id(feature) not in names or not isinstance(feature, Number):
                names[id(feature)] = model_input.name
        self._features = {names[id(feature)]: feature for feature in features.features}
        # The id of unseen values; None where they have none.
        self._single: list[tuple[str, int | None]] = []
        self._several: list[tuple[str, int | None]] = []
        for feature, model_input in features.inputs:
            if (rows := model_input.num_embeddings) is not None:
                known = not isinstance(feature, Number) and feature.table is not None
                counted = self._single if model_input.kind == "one_hot" else self._several
                counted.append((model_input.name, rows - 1 if known else None))
        self._count: dict[str, NDArray[np.int64]] = {}
        self._missing = dict.fromkeys(self._features, 0)
        self._looked = 0
        self._inputs = features.inputs

    def add(self, encoded: Encoded, rows: pl.DataFrame | Rows | None = None) -> None:
        """Count rows: of unseen values as they are encoded, of missing ones as they were raw."""
        self.rows += len(encoded)
        # No id is as low, so that those without unseen values are compared as well.
        others = np.array([-1 if other is None else other for _, other in self._single], np.int32)
        unseen = np.count_nonzero(encoded.ids == others, axis=0)
        for (name, other), count in zip(self._single, unseen, strict=True):
            self._add(name, int(count), len(encoded), other)
        if encoded.lists is not None:
            lists, count = encoded.lists, len(self._several)
            feature = np.repeat(np.arange(len(lists.offsets) - 1) % count, np.diff(lists.offsets))
            for place, (name, other) in enumerate(self._several):
                ids = lists.ids[feature == place]
                self._add(name, int(np.count_nonzero(ids == other)), len(ids), other)
        if rows is not None:
            self.look(rows)

    def _add(self, name: str, unseen: int, values: int, other: int | None) -> None:
        if other is not None:
            self._count[name] = self._count.get(name, 0) + np.array([unseen, values])

    def look(self, rows: pl.DataFrame | Rows) -> None:
        """Count the missing values of rows that are counted already."""
        rows = Rows.of(rows)
        self._looked += rows.height
        for name, feature in self._features.items():
            self._missing[name] += max(
                _missing(feature, rows, column) for column in feature.columns
            )

    def shares(self) -> list[Shares]:
        """Return the shares of all columns, those that differ most from training first."""
        shares = []
        for name in self._features:
            trained = self._trained.get(name, {})
            shares.append(
                Shares(
                    name=name,
                    rows=self.rows,
                    missing=self._missing[name] / self._looked if self._looked else None,
                    unseen=self._unseen(name),
                    trained_missing=trained.get("missing_rate"),
                    trained_unseen=trained.get("rare_rate"),
                )
            )
        return sorted(shares, key=lambda column: -column.excess)

    def _unseen(self, name: str) -> float | None:
        """Return the share of values that training did not see; None where nobody knows."""
        unseen, values = self._count.get(name, (0, 0))
        return float(unseen / values) if values else None

    def inputs(self) -> list[dict[str, Any]]:
        """Return what a manifest says of each input, JSON-ready.

        `missing` of the rows that were looked at lack its column; `rare` of those that were counted
        have a value without an id of its own, None where that has no meaning.
        """
        missing = {id(feature): self._missing[name] for name, feature in self._features.items()}
        described = []
        for feature, model_input in self._inputs:
            name, is_number = model_input.name, model_input.num_embeddings is None
            lacking, unseen = missing[id(feature)], self._unseen(name)
            described.append(
                {
                    "name": name,
                    "kind": "dense" if is_number else model_input.kind,
                    "num_embeddings": model_input.num_embeddings,
                    "missing": lacking,
                    "missing_rate": lacking / max(self._looked, 1),
                    "rare": None if unseen is None else round(unseen * self.rows),
                }
            )
        return described

    def warnings(self) -> list[str]:
        """Return what is much larger than in training, worst first."""
        return warnings_of(self.shares())


def warnings_of(shares: Iterable[Shares]) -> list[str]:
    """Return what is much larger than in training, the first few of it."""
    warned = [warning for column in shares for warning in column.warnings()]
    more = [f"... and {len(warned) - _SHOWN} more columns"] if len(warned) > _SHOWN else []
    return warned[:_SHOWN] + more


def _missing(feature: Feature, rows: Rows, name: str) -> int:
    column, dtype = rows.columns[name], rows.types[name]
    if isinstance(feature, Number) and not dtype.is_integer():
        return int(np.isnan(rows.numbers({name: feature.reading})).sum())
    if dtype.is_nested() or dtype.is_integer():
        return column.null_count()
    return as_series(rows.texts([name])[name]).null_count()
