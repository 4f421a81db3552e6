"""Number columns as a model sees them: scaled, and as quantile buckets.

x is the number, missing where the table has none.

    scaled   (f(x) - center) / deviation, with f the identity or sign(x) log(1 + |x|); or the rank
             of x among the training rows, from -1.7 to 1.7, which has deviation 1; missing is 0
    log1p    log(1 + x), 0 where x is missing or negative: nothing is fitted
    piecewise  its position between knots, see dlrm.data.features.piecewise
    buckets  the number of training quantiles at or below x; missing is a bucket of its own
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.features.calendar import Calendar
from dlrm.data.features.column import Column, Scale
from dlrm.data.features.inputs import Input, Parts
from dlrm.data.features.piecewise import at_positions, find_knots, positions
from dlrm.data.features.texts import PLAIN, NumberReading, as_numbers, in_one_go, is_text
from dlrm.data.features.time_text import DIGITS, UNITS

RANKS = 1000

_SQRT3 = 3.0**0.5
_LARGEST = float(np.finfo(np.float32).max)
_PLAIN = frozenset(
    (
        *(pl.Int8, pl.Int16, pl.Int32, pl.Int64),
        *(pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
        *(pl.Float32, pl.Float64),
    )
)
"""Types that numpy has, too: columns of these are read together."""


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
    def is_log1p(self) -> bool:
        """Whether the model gets log(1 + x) of it, and nothing else."""
        plain = not (self.flag or self.calendar or self.reading.format)
        return self.scale == "log1p" and self.dense and plain and self.edges is None

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

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

    def encode(self, frame: pl.DataFrame) -> Parts:
        """Return the inputs of a frame's rows."""
        return encode_numbers([self], frame)[0]

    def bucket(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the bucket of each raw value (n,); the last one is for missing."""
        return self.bucket_of(floats([self], values.alias(self.name).to_frame())[0])

    def bucket_of(self, x: NDArray[np.float64]) -> NDArray[np.int32]:
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

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"type": "number", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Number":
        """Rebuild what `to_dict` returned."""
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

    def ranked(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ranks of numbers among the training rows, from -1.7 to 1.7."""
        # Half-way through equal quantiles, so that a frequent number has its middle rank.
        places = np.linspace(0, 1, len(self.ranks))
        low = np.searchsorted(self.ranks, x, side="left")
        high = np.searchsorted(self.ranks, x, side="right") - 1
        inner = np.interp(x, self.ranks, places)
        tied = (high > low) & (low < len(places))
        middle = (places[np.minimum(low, RANKS)] + places[np.clip(high, 0, RANKS)]) / 2
        return (np.where(tied, middle, inner) * 2 - 1) * _SQRT3


def encode_numbers(numbers: Sequence[Number], frame: pl.DataFrame) -> list[Parts]:
    """Return the inputs of several number columns of n rows, which are computed together."""
    if all(number.is_log1p and frame[number.name].dtype in _PLAIN for number in numbers):
        # As the spill of a log computes them.
        dense = dense_array(dense_columns(frame, [number.name for number in numbers]))
        return [Parts(dense=[column]) for column in dense.T]
    return encode_floats(numbers, floats(numbers, frame))


def encode_floats(numbers: Sequence[Number], x: NDArray[np.float64]) -> list[Parts]:
    """Return the inputs of C columns from their numbers (C, n), NaN where they are missing."""
    missing = np.isnan(x)
    scaled = np.empty(x.shape, np.float32)
    for function in ("none", "log", "log1p", "quantile", "piecewise"):
        # Without ranks, a rank is a number that has no deviation.
        chosen = [
            c for c, number in enumerate(numbers) if number.dense and _function(number) == function
        ]
        if not chosen:
            continue
        if function == "log1p":
            scaled[chosen] = _log1p(x[chosen])
            continue
        if function == "piecewise":
            for c in chosen:
                knots = numbers[c].knots
                places = positions(x[c], knots) if knots else 0.0
                scaled[c] = np.where(missing[c], numbers[c].absent, places)
            continue
        if function == "quantile":
            y = np.stack([numbers[c].ranked(x[c]) for c in chosen])
        else:
            y = _log(x[chosen]) if function == "log" else x[chosen]
            center = np.array([numbers[c].center for c in chosen])
            deviation = np.array([numbers[c].deviation for c in chosen])
            with np.errstate(over="ignore"):
                y = (y - center[:, None]) / deviation[:, None]
        y[missing[chosen]] = 0.0
        scaled[chosen] = np.clip(y, -_LARGEST, _LARGEST).astype(np.float32)
    parts = []
    for c, number in enumerate(numbers):
        part = Parts()
        if number.dense:
            part.dense.append(scaled[c])
        if number.flag:
            part.dense.append(missing[c].astype(np.float32))
        if number.edges is not None:
            part.ids.append(number.bucket_of(x[c]))
        if number.calendar is not None:
            number.calendar.encode(x[c], part)
        parts.append(part)
    return parts


def floats(numbers: Sequence[Number], frame: pl.DataFrame) -> NDArray[np.float64]:
    """Return the raw numbers of C columns (C, n), NaN where they are missing or no numbers."""
    x = np.empty((len(numbers), frame.height))
    columns = [frame[number.name] for number in numbers]
    plain = [
        c
        for c, column in enumerate(columns)
        if column.dtype in _PLAIN and not numbers[c].reading.format
    ]
    if plain:
        together = pl.DataFrame([columns[c].alias(str(c)) for c in plain])
        x[plain] = together.to_numpy().T
    others: dict[NumberReading, dict[str, pl.Series]] = {}
    for c in set(range(len(columns))).difference(plain):
        others.setdefault(numbers[c].reading, {})[str(c)] = columns[c]
    for reading, alike in others.items():
        for c, (known, _) in in_one_go(alike, partial(as_numbers, reading=reading)).items():
            x[int(c)] = known.to_numpy()
    x[np.isinf(x)] = np.nan
    return x


def wrong_numbers(
    values: pl.Series, reading: NumberReading, known: tuple[pl.Series, pl.Series] | None = None
) -> Iterator[tuple[str, pl.Series, str]]:
    """Yield name, mask and what is expected, where values of a number column are no numbers.

    `known` is what `as_numbers` makes of them, where that is known already.
    """
    name, values = values.name, values.alias("")
    counted = reading.time and values.dtype.is_numeric()
    if is_text(values) or counted or (values.dtype.is_float() and values.is_infinite().any()):
        _, wrong = known or as_numbers(values, reading)
        if wrong.any():
            expected = "a time such as 2024-01-31 12:00:00" if reading.time else "a number"
            expected += f" written as {reading.format}" if reading.format else ""
            if counted and reading.format not in DIGITS:
                unit = reading.format if reading.format in UNITS else "seconds"
                expected = f"a time in {unit} since 1970"
            yield name, wrong, expected


def _function(number: Number) -> str:
    """Return the function that a number is put through before it is centred and scaled."""
    if number.scale == "quantile" and not number.ranks:
        return "none"
    return "none" if number.scale == "standard" else number.scale


def _log1p(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log(x + 1), 0 where x is NaN or negative."""
    # By Polars, as `dense_columns` does, so that both have the same last digit.
    positive = pl.Series(np.where(x > 0, x, 0.0).ravel())
    return positive.log1p().to_numpy().astype(np.float32).reshape(x.shape)


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(x) * np.log1p(np.abs(x))


def dense_columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return log(x + 1) of number columns as Float32; missing (null, NaN) and negative are 0."""
    # In float64 and rounded once, so that every machine computes the same float32.
    numbers = cs.by_name(*names).cast(pl.Float64).fill_null(0).fill_nan(0).clip(lower_bound=0)
    return frame.select(numbers.log1p().cast(pl.Float32))


def dense_array(frame: pl.DataFrame) -> NDArray[np.float32]:
    """Return Float32 columns as one row-major array (n, N)."""
    return np.ascontiguousarray(
        frame.to_numpy(order="c").reshape(frame.height, frame.width), np.float32
    )
