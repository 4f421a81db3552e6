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

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.sources.parts import Part
from dlrm.data.sources.text import chunks
from dlrm.errors import InputError

LABEL = "label"
MOST_NUMBERS = 4096
_CHUNK_BYTES = 8 << 20
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ENTRY = rf"^(?:(\d+):)?\+?(\d+):({_NUMBER})$"
_LINE = re.compile(rf"\s*(?:{_NUMBER}(?=\s|$))?(?:\s*(?:\d+:)?\d+:{_NUMBER}(?=\s|$))*\s*(?:#.*)?$")
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of n lines, L in all, one after another."""

    first: int
    """The number of the first line."""
    labels: pl.Series
    """(n,) texts; null where there is none"""
    lengths: NDArray[np.int64]
    """(n,) entries of each line"""
    field: NDArray[np.int64]
    """(L,) -1 where there is none"""
    index: NDArray[np.int64]
    """(L,)"""
    value: NDArray[np.float64]
    """(L,)"""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The line of each entry, counted from 0 (L,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def is_libsvm(lines: list[str]) -> bool:
    """Whether a file's first lines are of this format."""
    shown = [line for line in lines[:_LOOKED_AT] if len(line) < 1 << 16] or lines[:1]
    if not any(":" in line for line in shown):
        return False
    return all("," not in line and _LINE.match(line) for line in shown)


def entries(file: Path) -> Iterator[Entries]:
    """Yield the lines of a file, some megabytes at a time.

    Raises:
        InputError: A line is not of this format; names it.

    """
    number = 1
    for chunk in chunks(file, _CHUNK_BYTES):
        yield (lines := _entries(chunk, number, file))
        number += len(lines.lengths)


def _entries(chunk: bytes, number: int, file: Path) -> Entries:
    """Return the entries of some lines, the first of which has this number."""
    try:
        text = chunk.decode()
    except UnicodeDecodeError as error:
        line = number + chunk[: error.start].count(b"\n")
        raise InputError("is not UTF-8 text", file=file, line=line) from error
    lines = pl.Series(text.removesuffix("\n").split("\n"))
    if "#" in text:
        lines = lines.str.replace(r"\s*#.*$", "")
    words = lines.str.extract_all(r"\S+").alias("word").to_frame().with_row_index("row")
    words = words.explode("word").drop_nulls()
    first = words["row"].is_first_distinct()
    label = first & ~words["word"].str.contains(":", literal=True)
    field, index, value = words["word"].str.extract_groups(_ENTRY).struct.unnest().get_columns()
    numbers = index.cast(pl.Int64, strict=False), value.cast(pl.Float64, strict=False)
    fields = field.cast(pl.Int64, strict=False)
    right = (
        numbers[0].is_not_null() & numbers[1].is_finite() & (fields.is_null() == field.is_null())
    )
    wrong = ~(right.fill_null(value=False) | label)
    if wrong.any():
        at = int(wrong.arg_true()[0])
        problem = f'"{words["word"][at]}" is not index:value or field:index:value'
        raise InputError(problem, file=file, line=number + words["row"][at])
    labels = np.full(len(lines), None, object)
    labels[words["row"].filter(label).to_numpy()] = words["word"].filter(label).to_list()
    chosen = ~label
    lengths = np.bincount(words["row"].filter(chosen).to_numpy(), minlength=len(lines))
    return Entries(
        number,
        pl.Series(LABEL, labels.tolist(), pl.String),
        lengths,
        fields.fill_null(-1).filter(chosen).to_numpy(),
        *(part.filter(chosen).to_numpy() for part in numbers),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How entries become columns."""

    kind: Literal["positions", "fields", "bag", "numbers"]
    names: tuple[str, ...]
    """The columns."""
    lists: tuple[str, ...] = ()
    """Columns of these that are lists."""
    numbers: tuple[str, ...] = ()
    """fields: those of them that are numbers."""

    def schema(self) -> Columns:
        """Return what the columns are."""
        why = {"positions": "one entry a line here", "fields": "a field", "bag": "all entries"}
        columns = []
        for name in self.names:
            if self.kind == "numbers":
                reason = "indices with values other than 1"
                columns.append(Column(name=name, kind="number", why=reason))
            elif name in self.numbers:
                columns.append(
                    Column(name=name, kind="number", why="values other than 1 of a field")
                )
            else:
                kind = "list" if name in self.lists else "category"
                values = Values(min_count=2)
                columns.append(Column(name=name, kind=kind, values=values, why=why[self.kind]))
        return Columns(labels=(LABEL,), columns=tuple(columns))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Rebuild what `to_dict` returned."""
        names = {key: tuple(names) for key, names in values.items() if key != "kind"}
        return cls(kind=values["kind"], **names)


def find_layout(files: list[Path]) -> Layout:
    """Return how the entries of these files become columns."""
    lengths: set[int] = set()
    ones, top = True, -1
    fields: list[pl.DataFrame] = []
    places = pl.DataFrame(schema={"index": pl.Int64, "place": pl.Int64})
    for lines in (lines for file in files for lines in entries(file)):
        lengths |= set(np.unique(lines.lengths).tolist())
        ones &= bool((lines.value == 1).all())
        top = max(top, int(lines.index.max(initial=-1)))
        known = {"row": lines.rows, "field": lines.field, "index": lines.index}
        frame = pl.DataFrame({**known, "valued": lines.value != 1}).filter(pl.col("field") >= 0)
        # Two indices are as good as many.
        some = pl.col("index").unique().head(2)
        twice = pl.col("row").is_duplicated().any().alias("twice")
        fields.append(frame.group_by("field").agg(some, twice, pl.col("valued").any()))
        if frame.is_empty() and ones and len(lengths) == 1:
            place = np.arange(len(lines.index)) % max(*lengths, 1)
            pairs = pl.DataFrame({"index": lines.index, "place": place})
            places = pl.concat([places, pairs.unique()]).unique()
    together = pl.concat(fields).group_by("field")
    known = together.agg(pl.col("index").explode().n_unique(), pl.col("twice", "valued").any())
    if known.height:
        return _of_fields(known.sort("field"))
    if not ones:
        if top >= MOST_NUMBERS:
            problem = (
                f"has values other than 1 for indices up to {top}; numbers are read for indices "
                f"below {MOST_NUMBERS}. Make them ones, or write the table as CSV or Parquet"
            )
            raise InputError(problem, file=files[0])
        return Layout(kind="numbers", names=tuple(str(index) for index in range(top + 1)))
    if len(lengths) == 1 and 0 not in lengths and places["index"].n_unique() == len(places):
        return Layout(kind="positions", names=tuple(f"f{k}" for k in range(lengths.pop())))
    return Layout(kind="bag", names=("ids",), lists=("ids",))


def _of_fields(fields: pl.DataFrame) -> Layout:
    names, lists, numbers = list[str](), list[str](), list[str]()
    for field, indices, twice, valued in fields.iter_rows():
        names.append(f"f{field}")
        if twice:
            lists.append(f"f{field}")
        if valued and indices == 1 and not twice:
            numbers.append(f"f{field}")
        elif valued:
            names.append(f"f{field} value")
            numbers.append(f"f{field} value")
    return Layout(kind="fields", names=tuple(names), lists=tuple(lists), numbers=tuple(numbers))


def parts(file: Path, layout: Layout) -> Iterator[Part]:
    """Yield the rows of a file, in memory; see `frames`."""
    line = 1
    for frame in frames(file, layout):
        yield Part(frame, frame.height, file, line, line_of=lambda record: record + 1)
        line += frame.height


def frames(file: Path, layout: Layout) -> Iterator[pl.DataFrame]:
    """Yield the lines of a file as the columns of a layout, and the label.

    Raises:
        InputError: A line does not fit; names it.

    """
    names = layout.names
    for lines in entries(file):
        match layout.kind:
            case "bag":
                columns = [_lists(lines, names[0])]
            case "positions":
                wrong = np.flatnonzero(lines.lengths != len(names))
                if len(wrong):
                    problem = f"has {lines.lengths[wrong[0]]} entries, expected {len(names)}"
                    raise InputError(problem, file=file, line=lines.first + int(wrong[0]))
                index = np.ascontiguousarray(lines.index.reshape(-1, len(names)).T)
                columns = [
                    pl.Series(name, index[k]).cast(pl.String) for k, name in enumerate(names)
                ]
            case "fields":
                columns = [_of_field(lines, layout, name) for name in names]
            case "numbers":
                known = lines.index < len(names)
                numbers = np.zeros((len(names), len(lines.lengths)))
                numbers[lines.index[known], lines.rows[known]] = lines.value[known]
                columns = [pl.Series(name, numbers[k]) for k, name in enumerate(names)]
        yield lines.labels.to_frame().with_columns(columns)


def _of_field(lines: Entries, layout: Layout, name: str) -> pl.Series:
    chosen = lines.field == int(name.removesuffix(" value")[1:])
    if name in layout.numbers:
        rows, values = lines.rows[chosen], lines.value[chosen]
        return pl.Series(name, np.bincount(rows, values, len(lines.lengths)))
    lists = _lists(lines, name, chosen)
    return lists if name in layout.lists else lists.list.first().alias(name)


def _lists(lines: Entries, name: str, chosen: NDArray[np.bool_] | None = None) -> pl.Series:
    """Return the indices of each line as a list of texts; null where a line has none."""
    entry = slice(None) if chosen is None else chosen
    flat = pl.DataFrame({"row": lines.rows[entry], name: lines.index[entry]})
    lists = flat.group_by("row", maintain_order=True).agg(pl.col(name).cast(pl.String))
    rows = pl.DataFrame({"row": np.arange(len(lines.lengths))})
    return rows.join(lists, on="row", how="left", maintain_order="left")[name]
