"""Lists as a model sees them: a bag of ids a row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.tabular.columns import Values
from dlrm.data.tabular.hashing import hash_vocabulary, hashed
from dlrm.data.tabular.parts import Input, Parts
from dlrm.data.tabular.texts import as_texts
from dlrm.data.vocabulary import Vocabulary, distinct


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """A fitted list column: a bag of values a row."""

    name: str
    separator: str
    values: Values
    table: pl.DataFrame
    """`value` and `count`"""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

    @property
    def rows(self) -> int:
        """Rows of its table."""
        return self.values.hash_rows or self.table.height + 1

    @classmethod
    def fit(cls, name: str, separator: str, values: Values, column: pl.Series) -> "Tokens":
        """Fit to the training rows."""
        flat, _ = _split(column, separator)
        groups, _ = distinct(flat)
        table = groups.filter(pl.col("count") >= values.min_count)
        return cls(name=name, separator=separator, values=values, table=table)

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        return [Input(self.name, rows=self.rows, bags=True)]

    def encode(self, frame: pl.DataFrame) -> Parts:
        """Return the bags of a frame's rows."""
        flat, lengths = _split(frame[self.name], self.separator)
        if self.values.hash_rows:
            ids = hashed(flat, self.values.hash_rows)
        else:
            ids = Vocabulary(self.name, self.table).ids(flat)
        return Parts(ids=[(ids, lengths)])

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.values.hash_rows:
            return hash_vocabulary(self.name, self.rows)
        return Vocabulary(self.name, self.table)

    def file_table(self) -> pl.DataFrame:
        """Return the part of the table that new rows need."""
        return self.table

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the table."""
        return {
            "type": "list",
            "name": self.name,
            "separator": self.separator,
            "values": {
                name: getattr(self.values, name) for name in self.values.__dataclass_fields__
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], table: pl.DataFrame) -> "Tokens":
        """Rebuild what `to_dict` returned, with its table."""
        return cls(
            name=values["name"],
            separator=values["separator"],
            values=Values(**values["values"]),
            table=table,
        )


def _split(column: pl.Series, separator: str) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the values of all lists one after another, and the length of each list."""
    if not isinstance(column.dtype, pl.List | pl.Array):
        texts = as_texts(column)
        column = texts.str.split(separator)
    frame = pl.DataFrame({"row": pl.int_range(len(column), eager=True), "value": column})
    flat = frame.explode("value", empty_as_null=True)
    values = as_texts(flat["value"])
    flat = flat.with_columns(values.alias("value")).drop_nulls("value")
    lengths = np.bincount(flat["row"].to_numpy(), minlength=len(column)).astype(np.int64)
    return flat["value"], lengths
