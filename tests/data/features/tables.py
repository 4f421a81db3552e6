"""A random table of every kind of column, in every format, and how it is prepared."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dlrm.data.features import toml
from dlrm.data.features.columns import Columns
from dlrm.data.features.infer import infer
from dlrm.data.fitting import raw_table
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare as prepare_dataset
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.source import Source
from dlrm.data.sources.table_files import TableFiles
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset

CITIES = ["Zürich", "東京", 'the "Big" Apple', "a, b; c\td | e", "two\nlines", "\x1fodd\x1e", "NA"]
TAGS = ["red", "green", "blue", "grün", "black", "white", "pink", "gold"]


def table(rows: int = 300, seed: int = 0) -> pl.DataFrame:
    """Return numbers, categories, lists, ids, constants, truths and times, many of them missing."""
    rng = np.random.default_rng(seed)

    def holes(values: list[Any], share: float = 0.1) -> list[Any]:
        gone = rng.random(rows) < share
        return [None if lost else value for value, lost in zip(values, gone, strict=True)]

    seconds = rng.integers(0, 10**9, rows)
    return pl.DataFrame(
        {
            "row": np.arange(rows),
            "price": holes(rng.normal(50, 20, rows).tolist()),
            "amount": holes(np.exp(rng.normal(3, 2, rows)).tolist()),
            "whole": holes(rng.integers(-500, 500, rows).astype(float).tolist()),
            "user id": rng.integers(10**6, 10**6 + 40, rows),
            "few": holes(rng.integers(1, 6, rows).tolist()),
            "city": holes(rng.choice(CITIES, rows).tolist()),
            "tags": [rng.choice(TAGS, rng.integers(1, 4), replace=False).tolist() for _ in seconds],
            "member": holes((rng.random(rows) < 0.3).tolist()),
            "always": ["x"] * rows,
            "never": pl.Series([None] * rows, dtype=pl.String),
            "day": pl.Series(holes((seconds // 86_400).tolist())).cast(pl.Int32).cast(pl.Date),
            "seen": pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")),
            "label": (rng.random(rows) < 0.4).astype(np.int64),
        }
    )


def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame as CSV can hold it: lists with a stroke between their values."""
    lists = [name for name, dtype in frame.schema.items() if dtype == pl.List(pl.String)]
    return frame.with_columns(pl.col(lists).list.join("|"))


def csv(frame: pl.DataFrame, path: Path, separator: str = ",") -> Path:
    """Write a frame as CSV; compressed where the path says so."""
    text = texts(frame).write_csv(separator=separator).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def parquet(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path


def pieces(frame: pl.DataFrame, folder: Path) -> list[Path]:
    """Write a frame as three files."""
    third = frame.height // 3
    cut = [frame[:third], frame[third : 2 * third], frame[2 * third :]]
    return [csv(piece, folder / f"part{number}.csv") for number, piece in enumerate(cut)]


FORMATS: dict[str, Callable[[pl.DataFrame, Path], Source]] = {
    "csv": lambda frame, folder: TableFiles([csv(frame, folder / "t.csv")]),
    "csv.gz": lambda frame, folder: TableFiles([csv(frame, folder / "t.csv.gz")]),
    "tsv": lambda frame, folder: TableFiles([csv(frame, folder / "t.tsv", "\t")]),
    "semicolons": lambda frame, folder: TableFiles([csv(frame, folder / "t.txt", ";")]),
    "strokes": lambda frame, folder: TableFiles([csv(frame, folder / "t.dat", "|")]),
    "parquet": lambda frame, folder: TableFiles([parquet(frame, folder / "t.parquet")]),
    "files": lambda frame, folder: TableFiles(pieces(frame, folder)),
    "frame": lambda frame, folder: FrameSource(frame),
    "columns": lambda frame, folder: FrameSource(frame.to_dict(as_series=False)),
}


def prepare(source: Source | pl.DataFrame, out: Path, **settings: Any) -> Dataset:
    """Prepare a table with the label `label`."""
    source = FrameSource(source) if isinstance(source, pl.DataFrame) else source
    config = PrepareConfig(**{"label": ("label",), **settings})
    return prepare_dataset(source, out, config, quiet=True).dataset


def with_schema(
    source: Source | pl.DataFrame, out: Path, schema: Columns, **settings: Any
) -> Dataset:
    """Prepare a table with a schema."""
    out.parent.mkdir(exist_ok=True)
    file = out.with_suffix(".toml")
    file.write_text(toml.dumps(schema), encoding="utf-8")
    return prepare(source, out, schema=str(file), label=schema.labels, **settings)


def arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return all arrays of a dataset."""
    found = {}
    for name in SPLITS:
        split = dataset.split(name)
        for array in ("dense", "ids", "labels"):
            found[f"{name} {array}"] = np.array(getattr(split, array))
        if split.lists is not None:
            found[f"{name} list ids"], found[f"{name} list offsets"] = map(np.array, split.lists)
    return found


def assert_equal(one: Dataset, other: Dataset) -> None:
    """Check that two datasets have the same schema, arrays and vocabularies."""
    assert one.schema == other.schema
    mine, theirs = arrays(one), arrays(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], name)


def inferred(source: Source | pl.DataFrame, folder: Path, label: str = "label") -> dict[str, str]:
    """Return by column what it is taken for."""
    source = FrameSource(source) if isinstance(source, pl.DataFrame) else source
    folder.mkdir(exist_ok=True)
    schema = infer(raw_table(source, folder, lambda _: None), [label])
    return {
        column.name: "time"
        if column.time
        else column.kind
        if column.kind != "number"
        else column.scale
        for column in schema.columns
    }
