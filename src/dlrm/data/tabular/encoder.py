"""A table's rows -> arrays as the model takes them, with everything that was fitted.

A folder holds it as `encoder.json` and `vocabulary/<number>.parquet`, as `dlrm.data.encoder` does
for logs of a known format; `open_encoder` opens either.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm import schema as model_schema
from dlrm.data.encoded import Encoded
from dlrm.data.encoder import ENCODER_FILE, VOCABULARY_FOLDER, Encoder, link
from dlrm.data.tabular import toml
from dlrm.data.tabular.categories import Category
from dlrm.data.tabular.columns import Columns
from dlrm.data.tabular.libsvm import Layout
from dlrm.data.tabular.numbers import Number
from dlrm.data.tabular.parts import Input, Parts
from dlrm.data.tabular.texts import as_numbers, as_texts, is_text, positives
from dlrm.data.tabular.tokens import Tokens
from dlrm.data.vocabulary import Vocabulary
from dlrm.errors import DatasetError
from dlrm.files import write_json
from dlrm.schema import DenseFeature, Schema, Table

VERSION = 2
Feature = Number | Category | Tokens


@dataclass(frozen=True)
class TableEncoder:
    """Turns the rows of tables into arrays."""

    source: str
    """What the rows came from: `table`, `libsvm`, or the name of a source."""
    columns: Columns
    """The schema of the table."""
    click: str
    """The label's value that means a click, or a comparison."""
    label_values: tuple[str, ...]
    """The values that the label may have."""
    features: tuple[Feature, ...]
    layout: Layout | None = None
    """Of libsvm lines."""
    folder: Path = field(default=Path(), compare=False)
    """Where its files are."""

    max_rows_per_table: None = None

    @property
    def label(self) -> str:
        """The label column."""
        return self.columns.label

    @property
    def needed(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return tuple(dict.fromkeys(name for each in self.features for name in each.columns))

    @property
    def inputs(self) -> list[tuple[Feature, Input]]:
        """The model's inputs and where each comes from, no two numbers or categories of a name."""
        taken: set[tuple[bool, str]] = set()
        found = []
        for feature in self.features:
            for made in feature.inputs():
                # "age missing" may be a column of the table, and the flag of another one.
                name, number = made.name, 2
                while (made.rows is None, name) in taken:
                    name, number = f"{made.name} ({number})", number + 1
                taken.add((made.rows is None, name))
                found.append((feature, replace(made, name=name)))
        return found

    @property
    def dense(self) -> tuple[str, ...]:
        """Names of the N numbers."""
        return tuple(made.name for _, made in self.inputs if made.rows is None)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the T categories."""
        return tuple(made.name for _, made in self.inputs if made.rows is not None)

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each table."""
        return tuple(made.rows for _, made in self.inputs if made.rows is not None)

    @property
    def bags(self) -> bool:
        """Whether a category holds bags of ids."""
        return any(made.bags for _, made in self.inputs)

    @property
    def schema(self) -> Schema:
        """What the arrays mean."""
        return Schema(
            dense=tuple(
                DenseFeature(name=made.name, transform=made.transform)
                for _, made in self.inputs
                if made.rows is None
            ),
            tables=tuple(
                Table(name=made.name, num_embeddings=made.rows)
                for _, made in self.inputs
                if made.rows is not None
            ),
            features=tuple(
                model_schema.Feature(
                    name=made.name, table=made.name, kind="bag" if made.bags else "one_hot"
                )
                for _, made in self.inputs
                if made.rows is not None
            ),
            labels=(self.label,),
        )

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the values of a category, by id; the last id is for all others."""
        feature, _ = self._input(name, category=True)
        if isinstance(feature, Number):
            names = feature.bucket_names()
            frame = pl.DataFrame({"value": names, "count": [0] * len(names)})
            return Vocabulary(name, frame.head(len(names) - 1))
        return feature.vocabulary()

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the numbers of an input as the table has them, as far as that can be undone."""
        feature, made = self._input(name, category=False)
        if isinstance(feature, Number) and made.transform != "flag":
            return feature.raw(values)
        return values.astype(np.float64)

    def clicks(self, labels: pl.Series) -> pl.Series:
        """Return the labels (UInt8), null where the label is missing or none of its values."""
        return positives(list(self.label_values), self.click, self.label)(as_texts(labels))

    def wrong(self, frame: pl.DataFrame) -> Iterator[tuple[str, pl.Series, str]]:
        """Yield number columns with values that are no numbers: name, mask, and what is expected.

        Args:
            frame: n rows with the columns in `needed`.

        """
        for feature in self.features:
            if isinstance(feature, Number):
                yield from wrong_numbers(frame[feature.name], time=feature.time)

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Return rows as arrays; the labels are 0 where the frame has no label.

        Args:
            frame: n rows with the columns in `needed`.

        Raises:
            DatasetError: A column is absent.

        """
        if absent := [name for name in self.needed if name not in frame.columns]:
            raise DatasetError(f"the rows have no column {absent[0]}; they have {frame.columns}")
        parts = [feature.encode(frame) for feature in self.features]
        labels = np.zeros(frame.height, np.uint8)
        if self.label in frame.columns:
            labels = self.clicks(frame[self.label]).fill_null(0).to_numpy()
        return assemble(parts, labels)

    def save(self, folder: Path | str) -> None:
        """Copy the encoder's files into another folder, by hard links where that is possible."""
        target = Path(folder)
        (target / VOCABULARY_FOLDER).mkdir(parents=True, exist_ok=True)
        for file in self.files():
            link(self.folder / file, target / file)
        # Last, so that a folder with an encoder.json has everything it names.
        link(self.folder / ENCODER_FILE, target / ENCODER_FILE)

    def files(self) -> list[str]:
        """Return the files that the encoder needs beside encoder.json."""
        return [
            _file(number)
            for number, feature in enumerate(self.features)
            if not isinstance(feature, Number)
        ]

    def write(self, folder: Path) -> None:
        """Write the encoder into a new folder."""
        (folder / VOCABULARY_FOLDER).mkdir()
        for number, feature in enumerate(self.features):
            if not isinstance(feature, Number):
                with (folder / _file(number)).open("wb") as stream:
                    feature.file_table().write_parquet(stream, compression="zstd")
                    stream.flush()
                    os.fsync(stream.fileno())
        values = {
            "format": "dlrm-encoder",
            "version": VERSION,
            "source": self.source,
            "columns": toml.to_dict(self.columns),
            "click": self.click,
            "label_values": list(self.label_values),
            "layout": self.layout.to_dict() if self.layout else None,
            "features": [feature.to_dict() for feature in self.features],
        }
        write_json(folder / ENCODER_FILE, values)

    def _input(self, name: str, *, category: bool) -> tuple[Feature, Input]:
        return next(
            (feature, made)
            for feature, made in self.inputs
            if made.name == name and (made.rows is not None) == category
        )


def wrong_numbers(values: pl.Series, *, time: bool) -> Iterator[tuple[str, pl.Series, str]]:
    """Yield name, mask and what is expected, where values of a number column are no numbers."""
    if is_text(values) or values.dtype.is_float():
        _, wrong = as_numbers(values, time=time)
        if wrong.any():
            expected = "a time such as 2024-01-31 12:00:00" if time else "a number"
            yield values.name, wrong, expected


def assemble(parts: list[Parts], labels: NDArray[np.uint8]) -> Encoded:
    """Return the inputs of all features as arrays."""
    rows = len(labels)
    columns = [column for part in parts for column in part.dense]
    dense = np.empty((rows, len(columns)), np.float32)
    for position, column in enumerate(columns):
        dense[:, position] = column
    ids = [column for part in parts for column in part.ids]
    single = [column for column in ids if not isinstance(column, tuple)]
    bags = [column for column in ids if isinstance(column, tuple)]
    one_hot = np.empty((rows, len(single)), np.int32)
    for table, column in enumerate(single):
        one_hot[:, table] = column
    lists = interleaved(bags, rows) if bags else None
    return Encoded(dense, one_hot, labels.reshape(-1, 1), lists)


def interleaved(
    bags: list[tuple[NDArray[np.int32], NDArray[np.int64]]], rows: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the lists of F features, each as ids and lengths (n,), sample by sample as one."""
    lengths = np.empty((rows, len(bags)), np.int64)
    for table, (_, sizes) in enumerate(bags):
        lengths[:, table] = sizes
    offsets = np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int64)
    flat = np.empty(offsets[-1], np.int32)
    begins = offsets[:-1].reshape(rows, len(bags))
    for table, (values, sizes) in enumerate(bags):
        within = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        flat[np.repeat(begins[:, table], sizes) + within] = values
    return flat, offsets


def open_encoder(folder: Path | str) -> "Encoder | TableEncoder":
    """Open the encoder of a prepared dataset or of a run directory.

    Raises:
        DatasetError: The folder has none, or a damaged one, or one of another version.

    """
    path = Path(folder) / ENCODER_FILE
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or values.get("version") != VERSION:
            return Encoder.load(folder)
        return TableEncoder(
            source=values["source"],
            columns=toml.from_dict(values["columns"]),
            click=values["click"],
            label_values=tuple(values["label_values"]),
            features=tuple(
                _open_feature(each, Path(folder) / _file(number))
                for number, each in enumerate(values["features"])
            ),
            layout=Layout.from_dict(values["layout"]) if values["layout"] else None,
            folder=Path(folder),
        )
    except (OSError, ValueError):
        return Encoder.load(folder)
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}); prepare the dataset again") from error


def _open_feature(values: dict[str, Any], file: Path) -> Feature:
    if values["type"] == "number":
        return Number.from_dict(values)
    try:
        table = pl.read_parquet(file)
    except FileNotFoundError:
        raise DatasetError(f"{file} is missing; prepare the dataset again") from None
    except pl.exceptions.PolarsError as error:
        raise DatasetError(f"{file} is damaged ({error}); prepare the dataset again") from error
    kind = Category if values["type"] == "category" else Tokens
    return kind.from_dict(values, table)


def _file(number: int) -> str:
    # Numbered, because a column's name may be anything.
    return f"{VOCABULARY_FOLDER}/{number:04}.parquet"
