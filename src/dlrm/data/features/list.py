"""Lists and sequences as a model sees them: any number of ids a row."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column, Values
from dlrm.data.features.hashing import hash_vocabulary, hashed
from dlrm.data.features.list_text import LITERALS, list_items, unquoted
from dlrm.data.features.parts import Input, Parts
from dlrm.data.features.texts import as_texts
from dlrm.data.features.value_table import ValueTable
from dlrm.data.vocabulary import Vocabulary, distinct


@dataclass(frozen=True, kw_only=True, slots=True)
class List:
    """A fitted list column: a bag of values a row, or a sequence of them."""

    name: str
    separator: str
    """What stands between the values of a text."""
    values: Values
    table: ValueTable | None
    """The values that have ids; None where they are hashed."""
    table_name: str = ""
    """Of the model's table, where other columns share it."""
    kind: Literal["bag", "sequence"] = "bag"
    """Whether the order of the values means nothing, or the last one is the newest."""
    max_length: int = 0
    """Values that are kept of a longer sequence, the newest; 0 for all."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

    @property
    def num_embeddings(self) -> int:
        """Rows of its table."""
        return self.table.num_embeddings if self.table else self.values.hash_rows

    @classmethod
    def fit(
        cls,
        column: Column,
        values: pl.Series,
        *,
        shared: ValueTable | None = None,
        table_name: str = "",
    ) -> "List":
        """Fit to the training rows.

        Args:
            column: What becomes of it.
            values: Of the training rows.
            shared: The values of the table, where other columns share it.
            table_name: Its name, where others may share it.

        """
        table = shared
        if column.values.hash_rows:
            table = None
        elif table is None:
            groups, _ = distinct(split_lists(values, column.separator)[0])
            often = groups.filter(pl.col("count") >= column.values.min_count)
            table = ValueTable(column.name, often, kept=often.height)
        return cls(
            name=column.name,
            separator=column.separator,
            values=column.values,
            table=table,
            table_name=table_name,
            kind="sequence" if column.kind == "sequence" else "bag",
            max_length=column.max_length,
        )

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        return [
            Input(
                name=self.name,
                num_embeddings=self.num_embeddings,
                kind=self.kind,
                max_length=self.max_length,
                table=self.table_name,
            )
        ]

    def tables(self) -> list[ValueTable]:
        """Return the values that it keeps in files."""
        return [] if self.table is None else [self.table]

    def encode(self, frame: pl.DataFrame) -> Parts:
        """Return the lists of a frame's rows."""
        values, lengths = split_lists(frame[self.name], self.separator)
        if self.max_length and len(lengths) and lengths.max() > self.max_length:
            # Counted from the end of its list, each value has a place; the first ones are kept.
            ends = np.repeat(np.cumsum(lengths), lengths)
            values = values.filter(pl.Series(ends - np.arange(len(ends)) <= self.max_length))
            lengths = np.minimum(lengths, self.max_length)
        if self.table is None:
            return Parts(ids=[(hashed(values, self.values.hash_rows), lengths)])
        return Parts(ids=[(self.table.ids(values), lengths)])

    def too_long(self, values: pl.Series) -> int:
        """Return how many of these raw lists are longer than what is kept of them."""
        if not self.max_length:
            return 0
        return int((split_lists(values, self.separator)[1] > self.max_length).sum())

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.table is None:
            return hash_vocabulary(self.name, self.num_embeddings)
        return self.table.vocabulary()

    def to_dict(self, tables: list[ValueTable]) -> dict[str, Any]:
        """Return it as JSON-ready values; its table is named by its place among all."""
        return {
            "type": "list",
            "name": self.name,
            "separator": self.separator,
            "values": {
                name: getattr(self.values, name) for name in self.values.__dataclass_fields__
            },
            "table": None if self.table is None else tables.index(self.table),
            "table_name": self.table_name,
            "kind": self.kind,
            "max_length": self.max_length,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], tables: list[ValueTable]) -> "List":
        """Rebuild what `to_dict` returned."""
        return cls(
            name=values["name"],
            separator=values["separator"],
            values=Values(**values["values"]),
            table=None if values["table"] is None else tables[values["table"]],
            table_name=values["table_name"],
            kind=values["kind"],
            max_length=values["max_length"],
        )


def split_lists(column: pl.Series, separator: str) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the values of all lists one after another, and the length of each list (n,)."""
    literal = False
    if not isinstance(column.dtype, pl.List | pl.Array):
        texts = as_texts(column)
        column = list_items(texts) if separator == LITERALS else texts.str.split(separator)
        literal = separator == LITERALS
    frame = pl.DataFrame({"row": pl.int_range(len(column), eager=True), "value": column})
    flat = frame.explode("value", empty_as_null=True)
    values = as_texts(unquoted(flat["value"]) if literal else flat["value"])
    flat = flat.with_columns(values.alias("value")).drop_nulls("value")
    lengths = np.bincount(flat["row"].to_numpy(), minlength=len(column)).astype(np.int64)
    return flat["value"], lengths
