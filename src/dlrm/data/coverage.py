"""How much of some rows a model knows: values that training never saw, and missing ones.

Counted on ids that are there anyway: a value without a row of its own has the last id of its table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.number import Number
from dlrm.data.features.texts import as_numbers, as_texts

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
    """Also values that were too rare in training; None for numbers and hashed values."""
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
        self._features: dict[str, Feature] = {}
        for feature, model_input in features.inputs:
            if feature not in self._features.values():
                self._features[model_input.name] = feature
        # The id of unseen values; None where they have none.
        self._single: list[tuple[str, int | None]] = []
        self._several: list[tuple[str, int | None]] = []
        for feature, model_input in features.inputs:
            if (rows := model_input.num_embeddings) is not None:
                known = not isinstance(feature, Number) and feature.table is not None
                counted = self._single if model_input.kind == "one_hot" else self._several
                counted.append((model_input.name, rows - 1 if known else None))
        names = [name for name, _ in (*self._single, *self._several)]
        self._count = {name: np.zeros(2, np.int64) for name in names}
        self._missing = dict.fromkeys(self._features, 0)
        self._looked = False

    def add(self, encoded: Encoded, frame: pl.DataFrame | None = None) -> None:
        """Count rows: of unseen values as they are encoded, of missing ones in their raw frame."""
        self.rows += len(encoded)
        for place, (name, other) in enumerate(self._single):
            ids = encoded.ids[:, place]
            self._count[name] += (int((ids == other).sum()), len(ids))
        if encoded.lists is not None:
            count = max(1, len(self._several))
            of_list = np.repeat(
                np.arange(len(encoded) * count) % count, np.diff(encoded.lists.offsets)
            )
            for place, (name, other) in enumerate(self._several):
                ids = encoded.lists.ids[of_list == place]
                self._count[name] += (int((ids == other).sum()), len(ids))
        if frame is not None:
            self.look(frame)

    def look(self, frame: pl.DataFrame) -> None:
        """Count the missing values of rows that are counted already."""
        self._looked = True
        for name, feature in self._features.items():
            columns = (frame[column] for column in feature.columns)
            self._missing[name] += max(_missing(feature, values) for values in columns)

    def shares(self) -> list[Shares]:
        """Return the shares of all columns, those that differ most from training first."""
        known = {name for name, other in (*self._single, *self._several) if other is not None}
        shares = []
        for name in self._features:
            trained = self._trained.get(name, {})
            unseen, values = self._count.get(name, (0, 0))
            shares.append(
                Shares(
                    name=name,
                    rows=self.rows,
                    missing=self._missing[name] / self.rows if self._looked and self.rows else None,
                    unseen=float(unseen / values) if name in known and values else None,
                    trained_missing=trained.get("missing_rate"),
                    trained_unseen=trained.get("rare_rate"),
                )
            )
        return sorted(shares, key=lambda column: -column.excess)

    def warnings(self) -> list[str]:
        """Return what is much larger than in training, worst first."""
        return warnings_of(self.shares())


def warnings_of(shares: Iterable[Shares]) -> list[str]:
    """Return what is much larger than in training, the first few of it."""
    warned = [warning for column in shares for warning in column.warnings()]
    more = [f"... and {len(warned) - _SHOWN} more columns"] if len(warned) > _SHOWN else []
    return warned[:_SHOWN] + more


def _missing(feature: Feature, values: pl.Series) -> int:
    if values.dtype.is_numeric():
        nan = int(values.is_nan().sum()) if values.dtype.is_float() else 0
        return values.null_count() + nan
    if isinstance(feature, Number):
        return as_numbers(values, feature.reading)[0].null_count()
    if values.dtype.is_nested():
        return values.null_count()
    return as_texts(values).null_count()
