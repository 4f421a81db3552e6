"""Number columns as a model sees them: scaled, and as quantile buckets.

x is the number, missing where the table has none.

    scaled   (f(x) - center) / deviation, with f the identity or sign(x) log(1 + |x|); or the rank
             of x among the training rows, from -1.7 to 1.7, which has deviation 1; missing is 0
    log1p    log(1 + x), 0 where x is missing or negative: nothing is fitted
    piecewise  its position between knots, see dlrm.data.features.piecewise
    buckets  the number of training quantiles at or below x; missing is a bucket of its own
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.calendar import Calendar
from dlrm.data.features.column import Column, Scale
from dlrm.data.features.inputs import Input, Parts
from dlrm.data.features.piecewise import at_positions, find_knots, positions
from dlrm.data.features.rows import Rows
from dlrm.data.features.texts import PLAIN, NumberReading
from dlrm.data.features.time_text import DIGITS, UNITS
from dlrm.data.vocabulary import Vocabulary

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
    center: float = 0.0
    deviation: float = 1.0
    ranks: tuple[float, ...] = ()
    """quantile: RANKS + 1 training quantiles, rising; empty for other scales."""
    knots: tuple[float, ...] = ()
    """piecewise: rising; empty for other scales, and where no training row has a number."""
    absent: float = 0.0
    """piecewise: position that a missing number takes. 0 where training rows have such; otherwise,
    because no model has seen it, that of the median."""
    edges: tuple[float, ...] | None = None
    """Where buckets begin, but the first; None without buckets."""
    reading: NumberReading = PLAIN
    """How raw values become numbers."""
    calendar: Calendar | None = None
    """What its hour, weekday and recency become, where it is a time; None without."""

    @classmethod
    def fit(cls, column: Column, numbers: pl.Series, reading: NumberReading = PLAIN) -> "Number":
        """Fit a column to the numbers of the training rows (Float64), null where missing."""
        known = numbers.drop_nulls().to_numpy()
        known = known[np.isfinite(known)]
        ranks: tuple[float, ...] = ()
        knots: tuple[float, ...] = ()
        center, deviation, absent = 0.0, 1.0, 0.0
        if column.scale == "quantile" and len(known):
            ranks = tuple(np.quantile(known, np.linspace(0, 1, RANKS + 1)).tolist())
        elif column.scale == "piecewise" and len(known):
            knots = find_knots(known, column.bins)
            if len(known) == len(numbers):
                absent = float(positions(np.median(known), knots))
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
            quantiles = np.unique(np.quantile(known, inner, method="higher")) if len(known) else []
            edges = tuple(float(edge) for edge in quantiles if edge > known.min())
        return cls(
            name=column.name,
            scale=column.scale,
            dense=column.dense,
            flag=column.missing_flag,
            center=center,
            deviation=deviation,
            ranks=ranks,
            knots=knots,
            absent=absent,
            edges=edges,
            reading=reading,
            calendar=Calendar.fit(known) if column.calendar else None,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

    @property
    def alone(self) -> bool:
        """Whether the model gets the number itself and nothing else."""
        return self.dense and not self.flag and self.edges is None and self.calendar is None

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        inputs = []
        if self.dense:
            inputs.append(Input(name=self.name, transform=self.scale, bins=len(self.knots)))
        if self.flag:
            inputs.append(Input(name=f"{self.name} missing", transform="flag"))
        if self.edges is not None:
            names = tuple(self.bucket_names())
            inputs.append(
                Input(name=f"{self.name} bucket", num_embeddings=len(names), value_names=names)
            )
        if self.calendar is not None:
            inputs += self.calendar.inputs(self.name)
        return inputs

    def encode(self, rows: pl.DataFrame | Rows) -> Parts:
        """Return the inputs of n rows."""
        return encode_numbers([self], Rows.of(rows))[0]

    def buckets(self, x: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the bucket of each number (n,); NaN is missing."""
        edges = np.asarray(self.edges or ())
        places = np.searchsorted(edges, x, side="right")
        return np.where(np.isnan(x), len(edges) + 1, places).astype(np.int32)

    def bucket_names(self) -> list[str]:
        """Return what each bucket is called."""
        if self.edges is None:
            return []
        shown = [self._edge(edge) for edge in self.edges]
        if not shown:
            return ["any", "(missing)"]
        between = [f"{low} to {high}" for low, high in pairwise(shown)]
        return [f"below {shown[0]}", *between, f"{shown[-1]} and more", "(missing)"]

    def raw(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return scaled numbers as the table has them."""
        x = values.astype(np.float64)
        if self.scale == "quantile" and self.ranks:
            return np.interp((x / _SQRT3 + 1) / 2, np.linspace(0, 1, len(self.ranks)), self.ranks)
        if self.scale == "piecewise":
            return at_positions(x, self.knots) if self.knots else np.full(x.shape, np.nan)
        x = x * self.deviation + self.center
        with np.errstate(over="ignore"):
            if self.scale == "log1p":
                return np.expm1(x)
            return np.sign(x) * np.expm1(np.abs(x)) if self.scale == "log" else x

    def _edge(self, edge: float) -> str:
        if not self.reading.time:
            return f"{edge:.12g}"
        try:
            return str(datetime.fromtimestamp(edge, UTC).replace(tzinfo=None))
        except (OverflowError, ValueError, OSError):
            return f"{edge:g} s"

    def tables(self) -> list[Vocabulary]:
        """Return the values that it keeps in files: none."""
        return []

    def to_dict(self, tables: Sequence[Vocabulary] = ()) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        del tables
        return {"type": "number", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], tables: Sequence[Vocabulary] = ()) -> "Number":
        """Rebuild what `to_dict` returned."""
        del tables
        known = {key: value for key, value in values.items() if key not in ("type", "time")}
        edges, calendar = values["edges"], values.get("calendar")
        known["ranks"] = tuple(values["ranks"])
        known["knots"] = tuple(values.get("knots", ()))
        known["edges"] = None if edges is None else tuple(edges)
        # Older features only say whether it is a time.
        known["reading"] = NumberReading(
            **values.get("reading", {"time": values.get("time", False)})
        )
        known["calendar"] = Calendar(**calendar) if calendar else None
        return cls(**known)

    def placed(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the positions of numbers between knots, or their ranks, from -1.7 to 1.7."""
        if self.scale == "piecewise":
            return positions(x, self.knots) if self.knots else np.zeros(x.shape)
        if not self.ranks:
            return x
        # Half-way through equal quantiles, so that a frequent number has its middle rank.
        places = np.linspace(0, 1, len(self.ranks))
        low = np.searchsorted(self.ranks, x, side="left")
        high = np.searchsorted(self.ranks, x, side="right") - 1
        inner = np.interp(x, self.ranks, places)
        tied = (high > low) & (low < len(places))
        middle = (places[np.minimum(low, RANKS)] + places[np.clip(high, 0, RANKS)]) / 2
        return (np.where(tied, middle, inner) * 2 - 1) * _SQRT3


def encode_numbers(numbers: Sequence[Number], rows: Rows) -> list[Parts]:
    """Return the inputs of C number columns of n rows, which are computed together."""
    x = rows.numbers({number.name: number.reading for number in numbers})
    missing = np.isnan(x)
    scaled = scale_numbers(numbers, x, missing)
    parts = []
    for c, number in enumerate(numbers):
        part = Parts()
        if number.dense:
            part.dense.append(scaled[c])
        if number.flag:
            part.dense.append(missing[c].astype(np.float32))
        if number.edges is not None:
            part.ids.append(number.buckets(x[c]))
        if number.calendar is not None:
            number.calendar.encode(x[c], part)
        parts.append(part)
    return parts


def scale_numbers(
    numbers: Sequence[Number], x: NDArray[np.float64], missing: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return C number columns of n rows (C, n), scaled; they are NaN where they are missing."""
    scaled = np.empty(x.shape, np.float32)
    by_scale: dict[Scale, list[int]] = {}
    for c, number in enumerate(numbers):
        by_scale.setdefault(number.scale, []).append(c)
    for scale, chosen in by_scale.items():
        alike = [numbers[c] for c in chosen]
        # A view of all is sooner made than a copy of some.
        at = slice(None) if len(alike) == len(numbers) else chosen
        if scale == "log1p":
            # Nothing was fitted, and what is missing or negative counts as 0.
            y = np.fmax(x[at], 0.0)
            scaled[at] = np.log1p(y, out=y)
            continue
        if scale in ("quantile", "piecewise"):
            y = np.stack([number.placed(x[c]) for c, number in zip(chosen, alike, strict=True)])
        else:
            y = x[at]
            if scale == "log":
                y = _log(y)
            center, deviation = np.array([(n.center, n.deviation) for n in alike]).T[..., None]
            with np.errstate(over="ignore"):
                y = (y - center) / deviation
        y = np.where(missing[at], np.array([[n.absent] for n in alike]), y)
        scaled[at] = np.clip(y, -_LARGEST, _LARGEST)
    return scaled


def expected_number(dtype: pl.DataType, reading: NumberReading) -> str:
    """Return what a value of a number column should be, in words."""
    if reading.time and dtype.is_numeric() and reading.format not in DIGITS:
        unit = reading.format if reading.format in UNITS else "seconds"
        return f"a time in {unit} since 1970"
    expected = "a time such as 2024-01-31 12:00:00" if reading.time else "a number"
    return expected + (f" written as {reading.format}" if reading.format else "")


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(x) * np.log1p(np.abs(x))
