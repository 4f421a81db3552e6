"""Categories and crosses as a model sees them: ids, and numbers beside them."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.tabular.columns import CROSS_NAME, Values
from dlrm.data.tabular.hashing import hash_vocabulary, hashed
from dlrm.data.tabular.numbers import Number
from dlrm.data.tabular.parts import Input, Parts
from dlrm.data.tabular.target_encoding import BESIDE, Scaling, number_beside, outside_fold
from dlrm.data.tabular.texts import as_texts
from dlrm.data.vocabulary import Vocabulary, distinct
from dlrm.errors import DatasetError

_BETWEEN, _ESCAPE = "\x1f", "\x1e"
_MISSING = f"{_ESCAPE}m"
"""In the key of a cross; a text in which it stands is escaped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """A fitted category: of one column, or of a cross of several."""

    columns: tuple[str, ...]
    values: Values
    table: pl.DataFrame
    """`value`, `count` and `clicks` of all values; those with an embedding row first."""
    kept: int
    """Values with an embedding row of their own, if they are not hashed."""
    click_rate: float
    """Of the training rows."""
    scalings: dict[str, Scaling] = field(default_factory=dict)
    """Name of a number beside the category, as in BESIDE -> how it is scaled."""
    buckets: tuple[Number, ...] = ()
    """Number columns in the cross, which are there as their buckets."""

    @property
    def name(self) -> str:
        """Name of the feature."""
        return CROSS_NAME.join(self.columns)

    @property
    def beside(self) -> dict[str, str]:
        """The numbers beside it, by field of `Values`, and what each is called."""
        return {
            name: f"{self.name} {name.replace('_', ' ')}"
            for name in BESIDE
            if getattr(self.values, name)
        }

    @property
    def rows(self) -> int:
        """Rows of its table."""
        return self.values.hash_rows or self.kept + 1

    @classmethod
    def fit(
        cls,
        columns: tuple[str, ...],
        values: Values,
        frame: pl.DataFrame,
        clicks: NDArray[np.uint8],
        *,
        seed: int,
        buckets: tuple[Number, ...] = (),
    ) -> tuple["Category", dict[str, NDArray[np.float32]]]:
        """Fit to the training rows.

        Args:
            columns: One of the frame's, or two or three.
            values: What becomes of the values.
            frame: n training rows.
            clicks: (n,) labels.
            seed: Of the folds.
            buckets: Fitted number columns in a cross.

        Returns:
            The category, and by input name the numbers (n,) of the training rows themselves.

        """
        fitted = cls(
            columns=columns,
            values=values,
            table=pl.DataFrame(),
            kept=0,
            click_rate=float(clicks.mean()) if len(clicks) else 0.5,
            buckets=buckets,
        )
        groups, codes = distinct(fitted.keys(frame))
        summed = np.bincount(codes, clicks, minlength=len(groups)).astype(np.int64)
        table = groups.with_columns(pl.Series("clicks", summed)).with_row_index("code")
        often = table.filter(pl.col("count") >= values.min_count)
        rare = table.filter(pl.col("count") < values.min_count)
        order = pl.concat([often, rare])
        kept = 0 if values.hash_rows else len(often)
        fitted = replace(fitted, table=order.drop("code"), kept=kept)
        training: dict[str, NDArray[np.float32]] = {}
        scalings: dict[str, Scaling] = {}
        for name in fitted.beside:
            if name == "log_count":
                numbers = np.log1p(groups["count"].to_numpy()[codes] - 1.0)
            else:
                numbers = number_beside(
                    name, values, *outside_fold(codes, clicks, len(groups), values, seed)
                )
            scalings[name] = Scaling.fit(numbers)
            training[fitted.beside[name]] = scalings[name].apply(numbers)
        fitted = replace(fitted, scalings=scalings)
        return fitted, training

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        made = [Input(said, transform=name) for name, said in self.beside.items()]
        if self.values.embed:
            made.append(Input(self.name, rows=self.rows))
        return made

    def encode(self, frame: pl.DataFrame) -> Parts:
        """Return the inputs of a frame's rows, none of which is a training row."""
        keys = self.keys(frame)
        parts = Parts()
        known = None
        if self.beside or (self.values.embed and not self.values.hash_rows):
            known = Vocabulary(self.name, self.table).ids(keys)
        if known is not None and self.beside:
            count, clicks = (
                np.append(self.table[name].to_numpy(), 0)[known] for name in ("count", "clicks")
            )
            for name in self.beside:
                numbers = number_beside(name, self.values, count, clicks, self.click_rate)
                parts.dense.append(self.scalings[name].apply(numbers))
        if self.values.embed:
            if self.values.hash_rows:
                parts.ids.append(hashed(keys, self.values.hash_rows))
            elif known is not None:
                parts.ids.append(np.minimum(known, self.kept).astype(np.int32))
        return parts

    def keys(self, frame: pl.DataFrame) -> pl.Series:
        """Return the value of each row; null where a single column is missing."""
        if len(self.columns) == 1:
            return as_texts(frame[self.columns[0]])
        numbers = {number.name: number for number in self.buckets}
        texts = []
        for name in self.columns:
            if name in numbers:
                found = numbers[name].bucket(frame[name])
                texts.append(pl.Series(name, found).cast(pl.String))
            else:
                texts.append(_escaped(as_texts(frame[name])).fill_null(_MISSING).alias(name))
        joined = pl.concat_str(cs.by_name(*self.columns), separator=_BETWEEN)
        return pl.DataFrame(texts).select(joined.alias("key"))["key"]

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.values.hash_rows:
            return hash_vocabulary(self.name, self.rows)
        shown = self.table.head(self.kept).select("value", "count")
        readable = pl.col("value").str.replace_all(_BETWEEN, CROSS_NAME, literal=True)
        return Vocabulary(
            self.name,
            shown.with_columns(readable.str.replace_all(_MISSING, "(missing)", literal=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the table."""
        return {
            "type": "category",
            "columns": list(self.columns),
            "values": {
                name: getattr(self.values, name) for name in self.values.__dataclass_fields__
            },
            "kept": self.kept,
            "click_rate": self.click_rate,
            "scalings": {
                name: [each.center, each.deviation] for name, each in self.scalings.items()
            },
            "buckets": [number.to_dict() for number in self.buckets],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], table: pl.DataFrame) -> "Category":
        """Rebuild what `to_dict` returned, with its table."""
        scalings = {
            name: Scaling(center=center, deviation=deviation)
            for name, (center, deviation) in values["scalings"].items()
        }
        made = cls(
            columns=tuple(values["columns"]),
            values=Values(**values["values"]),
            table=table,
            kept=values["kept"],
            click_rate=values["click_rate"],
            buckets=tuple(Number.from_dict(each) for each in values["buckets"]),
            scalings=scalings,
        )
        if made.kept > table.height:
            raise DatasetError(
                f"the vocabulary of {made.name} has {table.height} values, {made.kept} are expected"
            )
        return made

    def file_table(self) -> pl.DataFrame:
        """Return the part of the table that new rows need."""
        return self.table if self.beside else self.table.head(self.kept)


def _escaped(texts: pl.Series) -> pl.Series:
    """Return texts without the letters that have a meaning in the key of a cross."""
    if not texts.str.contains(f"[{_BETWEEN}{_ESCAPE}]").any():
        return texts
    twice = texts.str.replace_all(_ESCAPE, f"{_ESCAPE}e", literal=True)
    return twice.str.replace_all(_BETWEEN, f"{_ESCAPE}b", literal=True)
