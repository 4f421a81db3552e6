"""Categories and crosses as a model sees them: ids, and numbers beside them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.features.column import CROSS_NAME, Values
from dlrm.data.features.inputs import Input, Parts
from dlrm.data.features.number import Number
from dlrm.data.features.rows import Rows, as_series
from dlrm.data.features.target_encoding import (
    NO_LABELS,
    LabelMoments,
    Scaling,
    encoding,
    outside_fold,
)
from dlrm.data.index import Keys
from dlrm.data.threads import check_pool
from dlrm.data.vocabulary import Vocabulary, distinct, fold, hash_vocabulary, hashed

_BETWEEN, _ESCAPE = "\x1f", "\x1e"
_MISSING = f"{_ESCAPE}m"
"""Mark of a missing value in the key of a cross; a text in which it stands is escaped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """A fitted category: of one column, or of a cross of several."""

    columns: tuple[str, ...]
    values: Values
    table: Vocabulary | None = None
    """The values that have ids; None where they are hashed, or have no embedding."""
    table_name: str = ""
    """Name of the model's table, where other columns share it."""
    counted: Vocabulary | None = None
    """The values with their counts and labels, for the numbers beside it; None without any."""
    moments: LabelMoments = NO_LABELS
    """Moments of the labels of the training rows."""
    scalings: dict[str, Scaling] = field(default_factory=dict)
    """Name of a number beside the category, as in ENCODINGS -> how it is scaled."""
    buckets: tuple[Number, ...] = ()
    """Number columns in the cross, which are there as their buckets."""

    @property
    def name(self) -> str:
        """Name of the feature."""
        return CROSS_NAME.join(self.columns)

    @property
    def encodings(self) -> dict[str, str]:
        """The numbers beside it, by field of `Values`, and what each is called."""
        return {name: f"{self.name} {name.replace('_', ' ')}" for name in self.values.encodings}

    @property
    def num_embeddings(self) -> int:
        """Rows of its table."""
        if self.values.hash_rows:
            return self.values.hash_rows
        return self.table.num_embeddings if self.table else 1

    @classmethod
    def fit(
        cls,
        columns: tuple[str, ...],
        values: Values,
        rows: pl.DataFrame | Rows,
        labels: NDArray[Any],
        *,
        seed: int = 0,
        buckets: tuple[Number, ...] = (),
        shared: Vocabulary | None = None,
        table_name: str = "",
    ) -> tuple["Category", dict[str, NDArray[np.float32]]]:
        """Fit to the training rows.

        Returns:
            The category, and by input name the numbers (n,) of the training rows themselves.

        """
        fitted = cls(
            columns=columns,
            values=values,
            table_name=table_name,
            moments=LabelMoments.fit(labels),
            buckets=buckets,
        )
        groups, codes = distinct(as_series(fitted.keys(Rows.of(rows))))
        summed = np.bincount(codes, labels, minlength=len(groups))
        frame = groups.with_columns(pl.Series("label_sum", summed))
        often = frame.filter(pl.col("count") >= values.min_count)
        own_ids = values.embed and not values.hash_rows
        num_ids = often.height if own_ids and shared is None else 0
        if fitted.encodings:
            # Values with an id of their own come first: one look-up gives counts and ids.
            rare = frame.filter(pl.col("count") < values.min_count)
            counted = Vocabulary(fitted.name, pl.concat([often, rare]), num_ids=num_ids)
            vocabulary = counted
        else:
            counted = None
            vocabulary = Vocabulary(
                fitted.name, often.select("value", "count"), num_ids=often.height
            )
        training: dict[str, NDArray[np.float32]] = {}
        scalings: dict[str, Scaling] = {}
        for name, title in fitted.encodings.items():
            if name == "log_count":
                numbers = np.log1p(groups["count"].to_numpy()[codes] - 1.0)
            else:
                outside = outside_fold(codes, labels, len(groups), values, seed)
                numbers = encoding(name, values, *outside)
            scalings[name] = Scaling.fit(numbers)
            training[title] = scalings[name].apply(numbers)
        table = (vocabulary if shared is None else shared) if own_ids else None
        return replace(fitted, table=table, counted=counted, scalings=scalings), training

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        inputs = [Input(name=title, transform=name) for name, title in self.encodings.items()]
        if self.values.embed:
            inputs.append(
                Input(name=self.name, num_embeddings=self.num_embeddings, table=self.table_name)
            )
        return inputs

    def tables(self) -> list[Vocabulary]:
        """Return the values that it keeps in files."""
        tables = (self.table, self.counted if self.counted is not self.table else None)
        return [table for table in tables if table is not None]

    def encode(self, rows: pl.DataFrame | Rows) -> Parts:
        """Return the inputs of n rows, none of which is a training row."""
        keys = self.keys(Rows.of(rows))
        parts = Parts()
        places = None
        if self.counted is not None:
            places = self.counted.places(keys)
            counts, sums = (
                np.append(self.counted.frame[name].to_numpy(), 0)[places]
                for name in ("count", "label_sum")
            )
            for name in self.encodings:
                numbers = encoding(name, self.values, counts, sums, self.moments)
                parts.dense.append(self.scalings[name].apply(numbers))
        if not self.values.embed:
            return parts
        if self.values.hash_rows:
            parts.ids.append(hashed(keys, self.values.hash_rows))
        elif self.table is not None and self.table is self.counted and places is not None:
            parts.ids.append(np.minimum(places, np.int32(self.table.num_ids)))
        elif self.table is not None:
            parts.ids.append(self.table.ids(keys))
        return parts

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are taken as texts."""
        numbers = {number.name for number in self.buckets}
        return () if self.values.whole_log else tuple(c for c in self.columns if c not in numbers)

    def keys(self, rows: Rows) -> Keys:
        """Return the value of each row; null where a single column is missing."""
        if self.values.whole_log:
            return fold(rows.columns[self.columns[0]], self.values.modulo or None)
        numbers = {number.name: number for number in self.buckets}
        texts = rows.texts(self.text_columns)
        if len(self.columns) == 1:
            return texts[self.columns[0]]
        check_pool()
        parts = []
        for name in self.columns:
            if name in numbers:
                x = rows.numbers({name: numbers[name].reading})[0]
                parts.append(pl.Series(name, numbers[name].buckets(x)).cast(pl.String))
            else:
                escaped = _escaped(as_series(texts[name]).alias(""))
                parts.append(escaped.fill_null(_MISSING).alias(name))
        joined = pl.concat_str(cs.by_name(*self.columns), separator=_BETWEEN)
        return pl.DataFrame(parts).select(joined.alias("key"))["key"]

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.table is None:
            return hash_vocabulary(self.name, self.num_embeddings)
        shown = self.table.known()
        if len(self.columns) == 1:
            return shown
        readable = pl.col("value").str.replace_all(_BETWEEN, CROSS_NAME, literal=True)
        return Vocabulary(
            self.name,
            shown.frame.with_columns(readable.str.replace_all(_MISSING, "(missing)", literal=True)),
        )

    def to_dict(self, tables: list[Vocabulary]) -> dict[str, Any]:
        """Return it as JSON-ready values; its tables are named by their place among all."""
        return {
            "type": "category",
            "columns": list(self.columns),
            "values": asdict(self.values),
            "table": None if self.table is None else tables.index(self.table),
            "table_name": self.table_name,
            "counted": None if self.counted is None else tables.index(self.counted),
            "label_mean": self.moments.mean,
            "label_variance": self.moments.variance,
            "scalings": {
                name: [scaling.center, scaling.deviation] for name, scaling in self.scalings.items()
            },
            "buckets": [number.to_dict() for number in self.buckets],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], tables: list[Vocabulary]) -> "Category":
        """Rebuild what `to_dict` returned."""
        return cls(
            columns=tuple(values["columns"]),
            values=Values(**values["values"]),
            table=None if values["table"] is None else tables[values["table"]],
            table_name=values["table_name"],
            counted=None if values["counted"] is None else tables[values["counted"]],
            moments=LabelMoments(mean=values["label_mean"], variance=values["label_variance"]),
            buckets=tuple(Number.from_dict(number) for number in values["buckets"]),
            scalings={
                name: Scaling(center=center, deviation=deviation)
                for name, (center, deviation) in values["scalings"].items()
            },
        )


def _escaped(texts: pl.Series) -> pl.Series:
    """Return texts without the letters that have a meaning in the key of a cross."""
    if not texts.str.contains(f"[{_BETWEEN}{_ESCAPE}]").any():
        return texts
    twice = texts.str.replace_all(_ESCAPE, f"{_ESCAPE}e", literal=True)
    return twice.str.replace_all(_BETWEEN, f"{_ESCAPE}b", literal=True)
