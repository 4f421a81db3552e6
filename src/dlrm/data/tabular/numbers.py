"""Number columns as a model sees them: scaled, and as quantile buckets.

x is the number, missing where the table has none.

    scaled   (f(x) - center) / deviation, with f the identity or sign(x) log(1 + |x|); or the rank
             of x among the training rows, from -1.7 to 1.7, which has deviation 1; missing is 0
    buckets  the number of training quantiles at or below x; missing is a bucket of its own
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.tabular.columns import Column, Scale
from dlrm.data.tabular.parts import Input, Parts
from dlrm.data.tabular.texts import as_numbers

RANKS = 1000
_SQRT3 = 3.0**0.5
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A fitted number column."""

    name: str
    scale: Scale
    dense: bool
    """Whether the model gets the number itself."""
    flag: bool
    """Whether it gets a number that says that this one is missing."""
    center: float
    deviation: float
    ranks: tuple[float, ...]
    """quantile: RANKS + 1 training quantiles, rising; empty for other scales."""
    edges: tuple[float, ...] | None
    """Where buckets begin, but the first; None without buckets."""
    time: bool = False
    """Whether its texts are times."""

    @classmethod
    def fit(cls, column: Column, values: pl.Series) -> "Number":
        """Fit a column to its training values."""
        numbers, _ = as_numbers(values, time=column.time)
        known = numbers.drop_nulls().to_numpy()
        ranks: tuple[float, ...] = ()
        center, deviation = 0.0, 1.0
        if column.scale == "quantile" and len(known):
            ranks = tuple(np.quantile(known, np.linspace(0, 1, RANKS + 1)).tolist())
        elif column.scale in ("standard", "log") and len(known):
            shown = _log(known) if column.scale == "log" else known
            # Squares of such numbers would not be finite.
            unit = max(1.0, float(np.abs(shown).max()) / 1e100)
            center = float((shown / unit).mean()) * unit
            deviation = float((shown / unit).std()) * unit
            # Of equal numbers, what rounding leaves of a deviation is no measure.
            deviation = deviation if deviation > 1e-12 * abs(center) else 1.0
        edges = None
        if column.buckets:
            inner = np.linspace(0, 1, column.buckets + 1)[1:-1]
            # A frequent number may be several quantiles; a lowest one is no edge.
            found = np.unique(np.quantile(known, inner, method="higher")) if len(known) else []
            edges = tuple(float(edge) for edge in found if edge > known.min())
        return cls(
            name=column.name,
            scale=column.scale,
            dense=column.dense,
            flag=column.missing_flag,
            center=center,
            deviation=deviation,
            ranks=ranks,
            edges=edges,
            time=column.time,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        made = []
        if self.dense:
            made.append(Input(self.name, transform=self.scale))
        if self.flag:
            made.append(Input(f"{self.name} missing", transform="flag"))
        if self.edges is not None:
            made.append(Input(f"{self.name} bucket", rows=len(self.edges) + 2))
        return made

    def encode(self, frame: pl.DataFrame) -> Parts:
        """Return the inputs of a frame's rows."""
        x = self.floats(frame[self.name])
        missing = np.isnan(x)
        parts = Parts()
        if self.dense:
            with np.errstate(over="ignore"):
                scaled = np.where(missing, 0.0, self._scaled(x))
            parts.dense.append(np.clip(scaled, -_LARGEST, _LARGEST).astype(np.float32))
        if self.flag:
            parts.dense.append(missing.astype(np.float32))
        if self.edges is not None:
            parts.ids.append(self._bucket(x))
        return parts

    def floats(self, values: pl.Series) -> NDArray[np.float64]:
        """Return the numbers of raw values (n,), NaN where missing."""
        return as_numbers(values, time=self.time)[0].to_numpy().astype(np.float64)

    def bucket(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the bucket of each raw value (n,); the last one is for missing."""
        return self._bucket(self.floats(values))

    def _bucket(self, x: NDArray[np.float64]) -> NDArray[np.int32]:
        edges = np.asarray(self.edges or ())
        found = np.searchsorted(edges, x, side="right")
        return np.where(np.isnan(x), len(edges) + 1, found).astype(np.int32)

    def bucket_names(self) -> list[str]:
        """Return what each bucket is called."""
        if self.edges is None:
            return []
        said = [self._edge(edge) for edge in self.edges]
        if not said:
            return ["any", "(missing)"]
        between = [f"{low} to {high}" for low, high in pairwise(said)]
        return [f"below {said[0]}", *between, f"{said[-1]} and more", "(missing)"]

    def raw(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return scaled numbers as the table has them."""
        x = values.astype(np.float64)
        if self.scale == "quantile" and self.ranks:
            return np.interp((x / _SQRT3 + 1) / 2, np.linspace(0, 1, len(self.ranks)), self.ranks)
        x = x * self.deviation + self.center
        with np.errstate(over="ignore"):
            return np.sign(x) * np.expm1(np.abs(x)) if self.scale == "log" else x

    def _edge(self, edge: float) -> str:
        if not self.time:
            return f"{edge:.12g}"
        try:
            return str(datetime.fromtimestamp(edge, UTC).replace(tzinfo=None))
        except (OverflowError, ValueError, OSError):
            return f"{edge:g} s"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"type": "number", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Number":
        """Rebuild what `to_dict` returned."""
        edges = values["edges"]
        return cls(
            **{
                **{key: value for key, value in values.items() if key != "type"},
                "ranks": tuple(values["ranks"]),
                "edges": None if edges is None else tuple(edges),
            }
        )

    def _scaled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.scale == "quantile" and self.ranks:
            # Half-way through equal quantiles, so that a frequent number has its middle rank.
            places = np.linspace(0, 1, len(self.ranks))
            low = np.searchsorted(self.ranks, x, side="left")
            high = np.searchsorted(self.ranks, x, side="right") - 1
            inner = np.interp(x, self.ranks, places)
            tied = (high > low) & (low < len(places))
            middle = (places[np.minimum(low, RANKS)] + places[np.clip(high, 0, RANKS)]) / 2
            return (np.where(tied, middle, inner) * 2 - 1) * _SQRT3
        if self.scale == "log":
            x = _log(x)
        return (x - self.center) / self.deviation


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(x) * np.log1p(np.abs(x))
