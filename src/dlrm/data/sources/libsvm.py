"""Lines of libsvm, libfm and libffm: `label index:value ...`, or `label field:index:value ...`.

The format has no columns; a layout, found by looking at all lines, says which it is read as:

    positions   every line has K entries of value 1, and no index comes at two positions: K
                categories `f0`, `f1`, ... (libfm's one-hot fields)
    fields      libffm: one category for each field, `f<field>`, or a list where it comes twice;
                where a field has values other than 1, their sum in a line is a number beside it,
                `f<field> value`, and all there is of a field that has one index
    bag         entries of value 1, as many as there are: one list `ids`
    numbers     other values: one number for each index, named by it; what is absent is 0
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.sources.entries import Entries, entries
from dlrm.errors import InputError

LABEL = "label"
MOST_NUMBERS = 4096
MOST_KEPT = 1 << 23
"""Entries kept in memory, some 200 MB, so that a file that is not large is read once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How entries become columns."""

    kind: Literal["positions", "fields", "bag", "numbers"]
    names: tuple[str, ...]
    """positions, fields and bag: the columns."""
    lists: tuple[str, ...] = ()
    """Columns of these that are lists."""
    numbers: tuple[str, ...] = ()
    """fields: those of them that are numbers."""

    def schema(self) -> Columns:
        """Return what the columns are."""
        if self.kind == "numbers":
            why = "indices with values other than 1"
            columns = [Column(name=name, kind="number", why=why) for name in self.names]
        else:
            why = {"positions": "one entry a line here", "fields": "a field", "bag": "all entries"}
            values = Values(min_count=2)
            columns = [
                Column(name=name, kind="number", why="values other than 1 of a field")
                if name in self.numbers
                else Column(
                    name=name,
                    kind="list" if name in self.lists else "category",
                    values=values,
                    why=why[self.kind],
                )
                for name in self.names
            ]
        return Columns(labels=(LABEL,), columns=tuple(columns))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "kind": self.kind,
            "names": list(self.names),
            "lists": list(self.lists),
            "numbers": list(self.numbers),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Rebuild what `to_dict` returned."""
        return cls(
            kind=values["kind"],
            names=tuple(values["names"]),
            lists=tuple(values["lists"]),
            numbers=tuple(values.get("numbers", ())),
        )


def find_layout(files: list[Path], kept: dict[Path, list[Entries]] | None = None) -> Layout:
    """Return how the entries of these files become columns."""
    lengths: set[int] = set()
    ones, fields, twice, top = True, set[int](), set[int](), -1
    valued, indices = set[int](), dict[int, set[int]]()
    places = pl.DataFrame(schema={"index": pl.Int64, "place": pl.Int64})
    room = MOST_KEPT
    for file in files:
        read: list[Entries] = []
        for lines in entries(file):
            if (room := room - len(lines.index)) >= 0:
                read.append(lines)
            lengths |= set(np.unique(lines.lengths).tolist())
            ones &= bool((lines.value == 1).all())
            top = max(top, int(lines.index.max(initial=-1)))
            if lines.field.max(initial=-1) >= 0:
                pairs = pl.DataFrame({"row": lines.rows, "field": lines.field})
                pairs = pairs.filter(pl.col("field") >= 0)
                fields |= set(pairs["field"].unique().to_list())
                twice |= set(pairs.filter(pairs.is_duplicated())["field"].unique().to_list())
                valued |= set(np.unique(lines.field[lines.value != 1]).tolist())
                distinct = pl.DataFrame({"field": lines.field, "index": lines.index}).unique()
                # Two are as good as many.
                for field, index in distinct.group_by("field").head(2).iter_rows():
                    indices.setdefault(field, set()).add(index)
            if not fields and ones and len(lengths) == 1:
                width = min(lengths)
                distinct = pl.DataFrame(
                    {"index": lines.index, "place": np.arange(len(lines.index)) % max(width, 1)}
                )
                places = pl.concat([places, distinct.unique()]).unique()
        if kept is not None and room >= 0:
            kept[file] = read
    if not ones and not fields:
        if top >= MOST_NUMBERS:
            problem = (
                f"has values other than 1 for indices up to {top}; numbers are read for indices "
                f"below {MOST_NUMBERS}. Make them ones, or write the table as CSV or Parquet"
            )
            raise InputError(problem, file=files[0])
        return Layout(kind="numbers", names=tuple(str(index) for index in range(top + 1)))
    if fields:
        known, valued = sorted(fields), valued & fields
        plain = {field for field in valued if len(indices[field]) == 1 and field not in twice}
        named = [
            name
            for field in known
            for name in (f"f{field}", f"f{field} value")[: 1 + (field in valued - plain)]
        ]
        return Layout(
            kind="fields",
            names=tuple(named),
            lists=tuple(f"f{field}" for field in known if field in twice),
            numbers=tuple(
                f"f{field}" if field in plain else f"f{field} value" for field in sorted(valued)
            ),
        )
    if len(lengths) == 1 and 0 not in lengths and places["index"].n_unique() == len(places):
        return Layout(kind="positions", names=tuple(f"f{k}" for k in range(lengths.pop())))
    return Layout(kind="bag", names=("ids",), lists=("ids",))


def frames(
    file: Path, layout: Layout, read: Iterable[Entries] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the lines of a file as the columns of a layout, and the label.

    Raises:
        InputError: A line does not fit; names it.

    """
    for lines in entries(file) if read is None else read:
        columns = lines.labels.to_frame()
        match layout.kind:
            case "bag":
                yield columns.with_columns(_lists(lines, layout.names[0]))
            case "positions":
                wrong = np.flatnonzero(lines.lengths != len(layout.names))
                if len(wrong):
                    problem = f"has {lines.lengths[wrong[0]]} entries, expected {len(layout.names)}"
                    raise InputError(problem, file=file, line=lines.first + int(wrong[0]))
                index = lines.index.reshape(-1, len(layout.names))
                yield columns.with_columns(
                    pl.Series(name, np.ascontiguousarray(index[:, k])).cast(pl.String)
                    for k, name in enumerate(layout.names)
                )
            case "fields":
                yield columns.with_columns(_by_field(lines, layout))
            case "numbers":
                yield columns.with_columns(_by_index(lines, layout))


def _lists(lines: Entries, name: str, entry_mask: NDArray[np.bool_] | None = None) -> pl.Series:
    """Return the indices of each line as a list of texts; null where a line has none."""
    chosen = slice(None) if entry_mask is None else entry_mask
    flat = pl.DataFrame({"row": lines.rows[chosen], name: lines.index[chosen]})
    lists = flat.group_by("row", maintain_order=True).agg(pl.col(name).cast(pl.String))
    rows = pl.DataFrame({"row": np.arange(len(lines.lengths))})
    return rows.join(lists, on="row", how="left", maintain_order="left")[name]


def _by_field(lines: Entries, layout: Layout) -> list[pl.Series]:
    columns = []
    for name in layout.names:
        chosen = lines.field == int(name.removesuffix(" value")[1:])
        if name in layout.numbers:
            rows, values = lines.rows[chosen], lines.value[chosen]
            columns.append(pl.Series(name, np.bincount(rows, values, len(lines.lengths))))
            continue
        lists = _lists(lines, name, chosen)
        columns.append(lists if name in layout.lists else lists.list.first().alias(name))
    return columns


def _by_index(lines: Entries, layout: Layout) -> list[pl.Series]:
    known = lines.index < len(layout.names)
    numbers = np.zeros((len(layout.names), len(lines.lengths)))
    numbers[lines.index[known], lines.rows[known]] = lines.value[known]
    return [pl.Series(name, numbers[k]) for k, name in enumerate(layout.names)]
