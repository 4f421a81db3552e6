"""Lines of libsvm, libfm and libffm: `label index:value ...`, or `label field:index:value ...`.

The format has no columns; a layout, found by looking at all lines, says which it is read as:

    positions   every line has K entries of value 1, and no index comes at two positions: K
                categories `f0`, `f1`, ... (libfm's one-hot fields)
    fields      libffm: one category for each field, `f<field>`, or a list where it comes twice
    bag         entries of value 1, as many as there are: one list `ids`
    numbers     other values: one number for each index, named by it; what is absent is 0
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from dlrm.data.tabular.columns import Column, Columns, Values
from dlrm.data.text import chunks
from dlrm.errors import InputError

LABEL = "label"
MOST_NUMBERS = 4096
_CHUNK_BYTES = 8 << 20
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"\s*(?:{_NUMBER}(?=\s|$))?(?:\s*(?:\d+:)?\d+:{_NUMBER}(?=\s|$))*\s*(?:#.*)?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How entries become columns."""

    kind: Literal["positions", "fields", "bag", "numbers"]
    names: tuple[str, ...]
    """positions, fields and bag: the columns."""
    lists: tuple[str, ...] = ()
    """Those of them that are lists."""

    def schema(self) -> Columns:
        """Return what the columns are."""
        if self.kind == "numbers":
            why = "indices with values other than 1"
            made = [Column(name=name, kind="number", why=why) for name in self.names]
        else:
            why = {"positions": "one entry a line here", "fields": "a field", "bag": "all entries"}
            values = Values(min_count=2)
            made = [
                Column(
                    name=name,
                    kind="list" if name in self.lists else "category",
                    values=values,
                    why=why[self.kind],
                )
                for name in self.names
            ]
        return Columns(label=LABEL, columns=tuple(made))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"kind": self.kind, "names": list(self.names), "lists": list(self.lists)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Rebuild what `to_dict` returned."""
        return cls(kind=values["kind"], names=tuple(values["names"]), lists=tuple(values["lists"]))


def is_libsvm(first: str) -> bool:
    """Whether a file's first line is of this format."""
    return ":" in first and "," not in first and bool(_LINE.match(first))


def entries(file: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the lines of a file, some megabytes at a time, each with the number of its first line.

    Columns: label (String, null where there is none), and lists of equal length: field (Int64, -1
    where there is none), index (Int64), value (Float64).

    Raises:
        InputError: A line is not of this format; names it.

    """
    number = 1
    for chunk in chunks(file, _CHUNK_BYTES):
        try:
            text = chunk.decode()
        except UnicodeDecodeError as error:
            line = number + chunk[: error.start].count(b"\n")
            raise InputError("is not UTF-8 text", file=file, line=line) from error
        lines = pl.Series("line", text.splitlines()).str.replace(r"\s*#.*$", "").str.strip_chars()
        words = lines.str.replace_all(r"\s+", " ").str.split(" ")
        frame = pl.DataFrame({"words": words}).with_row_index("row").explode("words")
        frame = frame.with_columns(pl.col("words").str.split(":").alias("parts"))
        frame = frame.with_columns(
            pl.col("parts").list.len().alias("size"),
            pl.int_range(pl.len()).over("row").alias("place"),
        )
        labels = frame.filter(pl.col("size") == 1)
        if len(wrong := labels.filter(pl.col("place") > 0)):
            word = wrong["words"][0]
            problem = f'"{word}" is not index:value'
            raise InputError(problem, file=file, line=number + wrong["row"][0])
        pairs = frame.filter(pl.col("size") > 1).with_columns(
            pl.when(pl.col("size") == 3)
            .then(pl.col("parts").list.get(0, null_on_oob=True).cast(pl.Int64, strict=False))
            .otherwise(-1)
            .alias("field"),
            pl.col("parts").list.get(-2).cast(pl.Int64, strict=False).alias("index"),
            pl.col("parts").list.get(-1).cast(pl.Float64, strict=False).alias("value"),
        )
        wrong = pairs.filter(
            pl.col("field").is_null()
            | (pl.col("index").is_null() | (pl.col("index") < 0))
            | ~pl.col("value").is_finite().fill_null(value=False)
            | (pl.col("size") > 3)
        )
        if len(wrong):
            problem = f'"{wrong["words"][0]}" is not index:value or field:index:value'
            raise InputError(problem, file=file, line=number + wrong["row"][0])
        grouped = pairs.group_by("row", maintain_order=True).agg("field", "index", "value")
        yield (
            number,
            lines.to_frame()
            .with_row_index("row")
            .join(labels.select("row", label="words"), on="row", how="left", maintain_order="left")
            .join(grouped, on="row", how="left", maintain_order="left")
            .select(
                pl.col("label").replace("", None),
                *(pl.col(name).fill_null([]) for name in ("field", "index", "value")),
            ),
        )
        number += len(lines)


def find_layout(files: list[Path]) -> Layout:
    """Return how the entries of these files become columns.

    Raises:
        InputError: A file is not of this format.

    """
    lengths: set[int] = set()
    ones, fields, twice, top = True, False, set(), -1
    position: dict[int, int] = {}
    mixed = False
    for file in files:
        for _, frame in entries(file):
            lengths |= set(frame["index"].list.len().unique().to_list())
            flat = (
                frame.select(
                    pl.int_ranges(pl.col("index").list.len()).alias("place"),
                    "field",
                    "index",
                    "value",
                )
                .with_row_index("row")
                .explode("place", "field", "index", "value")
                .drop_nulls("index")
            )
            ones &= bool((flat["value"] == 1).all())
            top = max(top, int(flat["index"].max() or 0)) if len(flat) else top  # pyright: ignore[reportArgumentType]
            found = flat.filter(pl.col("field") >= 0)
            fields |= bool(len(found))
            often = found.group_by("row", "field").len().filter(pl.col("len") > 1)
            twice |= set(often["field"].unique().to_list())
            position |= dict.fromkeys(found["field"].unique().to_list(), 0) if fields else {}
            if not fields and not mixed and ones and len(lengths) == 1:
                for index, place in flat.select("index", "place").unique().iter_rows():
                    mixed |= position.setdefault(index, place) != place
    if not ones and not fields:
        if top >= MOST_NUMBERS:
            problem = (
                f"has values other than 1 for indices up to {top}; numbers are read for indices "
                f"below {MOST_NUMBERS}. Make them ones, or write the table as CSV or Parquet"
            )
            raise InputError(problem, file=files[0])
        return Layout(kind="numbers", names=tuple(str(index) for index in range(top + 1)))
    if fields:
        known = sorted(position)
        return Layout(
            kind="fields",
            names=tuple(f"f{each}" for each in known),
            lists=tuple(f"f{each}" for each in known if each in twice),
        )
    if len(lengths) == 1 and not mixed and 0 not in lengths:
        return Layout(kind="positions", names=tuple(f"f{k}" for k in range(lengths.pop())))
    return Layout(kind="bag", names=("ids",), lists=("ids",))


def frames(file: Path, layout: Layout) -> Iterator[pl.DataFrame]:
    """Yield the lines of a file as the columns of a layout, and the label.

    Raises:
        InputError: A line does not fit; names it.

    """
    for number, frame in entries(file):
        columns = frame.select("label")
        match layout.kind:
            case "bag":
                ids = frame["index"].cast(pl.List(pl.String)).alias(layout.names[0])
                yield columns.with_columns(ids)
            case "positions":
                wrong = (frame["index"].list.len() != len(layout.names)).arg_true()
                if len(wrong):
                    found = len(frame["index"][int(wrong[0])])
                    problem = f"has {found} entries, expected {len(layout.names)}"
                    raise InputError(problem, file=file, line=number + int(wrong[0]))
                yield columns.with_columns(
                    frame["index"].list.get(k).cast(pl.String).alias(name)
                    for k, name in enumerate(layout.names)
                )
            case "fields":
                yield columns.with_columns(_by_field(frame, layout))
            case "numbers":
                yield columns.with_columns(_by_index(frame, layout))


def _by_field(frame: pl.DataFrame, layout: Layout) -> list[pl.Series]:
    flat = frame.select("field", "index").with_row_index("row").explode("field", "index")
    made = []
    for name in layout.names:
        mine = (
            flat.filter(pl.col("field") == int(name[1:]))
            .group_by("row", maintain_order=True)
            .agg(pl.col("index").cast(pl.String))
        )
        lists = (
            pl.DataFrame({"row": pl.int_range(frame.height, dtype=pl.UInt32, eager=True)})
            .join(mine, on="row", how="left", maintain_order="left")["index"]
            .alias(name)
        )
        made.append(lists if name in layout.lists else lists.list.first().alias(name))
    return made


def _by_index(frame: pl.DataFrame, layout: Layout) -> list[pl.Series]:
    flat = frame.select("index", "value").with_row_index("row").explode("index", "value")
    flat = flat.drop_nulls("index").filter(pl.col("index") < len(layout.names))
    numbers = np.zeros((len(layout.names), frame.height))
    numbers[flat["index"].to_numpy(), flat["row"].to_numpy()] = flat["value"].to_numpy()
    return [pl.Series(name, numbers[k]) for k, name in enumerate(layout.names)]
