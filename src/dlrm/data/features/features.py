"""Raw frames -> arrays as a model takes them, with everything that was fitted.

A folder holds features as `features.json` and `vocabulary/NNNN.parquet`: a prepared dataset does,
and a run directory, so that it can score raw rows on its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.data.features import toml
from dlrm.data.features.category import Category
from dlrm.data.features.columns import Columns
from dlrm.data.features.inputs import (
    Input,
    Parts,
    assemble,
    named_apart,
    schema_of,
    side_by_side,
)
from dlrm.data.features.labels import Label
from dlrm.data.features.list import LITERALS, List, wrong_lists
from dlrm.data.features.number import Number, encode_numbers, expected_number, scale_numbers
from dlrm.data.features.number_text import without
from dlrm.data.features.rows import Rows
from dlrm.data.features.texts import NumberReading
from dlrm.data.features.values import NotPlainError, Values
from dlrm.data.index import FewRows, IntegerIndex
from dlrm.data.sources.libsvm import Layout
from dlrm.data.sources.reading import Reading
from dlrm.data.store import FEATURES_FILE, VOCABULARY_FOLDER
from dlrm.data.vocabulary import Vocabulary, ids_of, link
from dlrm.errors import DatasetError
from dlrm.files import write_json
from dlrm.json_file import read_json
from dlrm.schema import Schema

FORMAT, VERSION = "dlrm-features", 1
Feature = Number | Category | List
_KINDS: dict[str, type[Feature]] = {"number": Number, "category": Category, "list": List}


@dataclass(frozen=True)
class Features:
    """Fitted features. They turn raw rows into arrays; stateless, several threads may encode."""

    source: str
    """What the rows came from: `criteo`, `clicks`, `table`, `libsvm`, or the name of a source."""
    columns: Columns
    """The schema of the raw columns."""
    targets: tuple[Label, ...]
    """What the labels mean."""
    features: tuple[Feature, ...]
    """What becomes of the other columns, fitted."""
    layout: Layout | None = None
    """Layout of libsvm lines; None for other files."""
    reading: Reading = field(default_factory=Reading)
    """What the user said of how texts are read."""
    folder: Path | None = field(default=None, compare=False)
    """Where their files are; None until they are saved."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The K label columns."""
        return self.columns.labels

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs, but for labels and weights."""
        return tuple(dict.fromkeys(name for feature in self.features for name in feature.columns))

    @cached_property
    def inputs(self) -> list[tuple[Feature, Input]]:
        """The model's inputs and where each comes from, no two numbers or categories of a name."""
        pairs = [
            (feature, model_input) for feature in self.features for model_input in feature.inputs()
        ]
        named = named_apart([model_input for _, model_input in pairs])
        return [
            (feature, model_input) for (feature, _), model_input in zip(pairs, named, strict=True)
        ]

    @cached_property
    def schema(self) -> Schema:
        """Schema of the arrays that `encode` returns."""
        inputs = [model_input for _, model_input in self.inputs]
        return schema_of(inputs, self.columns.labels, self.columns.task)

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the values of a category, by id; the last id is for all others."""
        feature, model_input = self._input(name, category=True)
        if isinstance(feature, Number):
            names = model_input.value_names
            frame = pl.DataFrame({"value": names, "count": [0] * len(names)})
            return Vocabulary(name, frame.head(len(names) - 1))
        return feature.vocabulary()

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the numbers of an input as the raw data have them, as far as can be undone."""
        feature, model_input = self._input(name, category=False)
        if isinstance(feature, Number) and model_input.transform not in ("flag", "recency"):
            return feature.raw(values)
        return values.astype(np.float64)

    def wrong(self, rows: Rows) -> Iterator[tuple[str, pl.Series, str]]:
        """Yield columns with values that are no numbers or lists: name, mask, what is expected."""
        rows.read(self._readings)
        for name in (name for name in self._readings if name in rows.wrong):
            expected = expected_number(rows.types[name], self._readings[name])
            yield name, rows.wrong[name], expected
        for feature in self._lists:
            yield from wrong_lists(rows.columns[feature.name], feature.separator)

    def rows(self, frame: pl.DataFrame) -> Rows:
        """Return the rows of a frame, without the texts that the schema says are missing."""
        return Rows(without(frame, self.columns.missing))

    def plain_rows(self, values: Sequence[Mapping[str, Any]]) -> Rows | None:
        """Return rows of Python's values, each read by itself; see `dlrm.data.features.values`.

        What a row lacks is missing. None where a value is not to be read so, or is no number: then
        `rows` of a frame says what it is, or what is wrong with it.
        """
        plain = Values(values, self.columns.missing)
        try:
            plain.numbers(self._readings)
            plain.texts(self._text_columns)
            plain.integers(self.numbered_columns, as_columns=self._few_rows is None)
            for feature in self._lists:
                literal = feature.separator == LITERALS
                plain.lists(feature.name, None if literal else feature.separator)
        except NotPlainError:
            return None
        return plain.read

    def encode(self, rows: pl.DataFrame | Rows) -> Encoded:
        """Return n rows with the columns in `needed` as arrays, without labels.

        Raises:
            DatasetError: A column is absent, or of another kind than the vocabulary.

        """
        if not isinstance(rows, Rows):
            names = rows.columns
            if absent := [name for name in self.needed if name not in names]:
                raise DatasetError(f"the rows have no column {absent[0]}; they have {names}")
            rows = self.rows(rows)
        if self._two_blocks:
            numbers = list(self._numbers.values())
            x = rows.numbers(self._readings)
            dense = scale_numbers(numbers, x, np.isnan(x))
            return Encoded(
                side_by_side([*dense], rows.height, np.float32), self._numbered_ids(rows)
            )
        return assemble(self._parts(rows), rows.height)

    def _parts(self, rows: Rows) -> list[Parts]:
        """Return the inputs of each feature; those alike are computed together."""
        parts: dict[int, Parts] = {}
        if numbers := self._numbers:
            parts |= zip(numbers, encode_numbers(list(numbers.values()), rows), strict=True)
        if numbered := self._numbered:
            ids = self._numbered_ids(rows)
            parts |= {
                place: Parts(ids=[column]) for place, column in zip(numbered, ids.T, strict=True)
            }
        # Columns of one type together.
        rows.texts(self._text_columns)
        for place, feature in enumerate(self.features):
            if place not in parts:
                parts[place] = feature.encode(rows)
        return [parts[place] for place in range(len(self.features))]

    @cached_property
    def _two_blocks(self) -> bool:
        """Whether inputs are the numbers alone, and ids of values numbered over a whole log."""
        numbers, numbered = self._numbers, self._numbered
        alone = all(number.alone for number in numbers.values())
        all_of_them = len(numbers) + len(numbered) == len(self.features)
        return alone and all_of_them and bool(numbered) and len(self._readings) == len(numbers)

    def _numbered_ids(self, rows: Rows) -> NDArray[np.int32]:
        """Return the ids (n, T) of the values that are numbered over a whole log."""
        names = self.numbered_columns
        if self._few_rows is not None and all(name in rows.integers for name in names):
            ids = self._few_rows.ids([rows.integers[name] for name in names])
            if ids is not None:
                return ids
        numbered = self._numbered.values()
        known = [category.table for category in numbered if category.table]
        moduli = [category.values.modulo for category in numbered]
        return ids_of(known, [rows.columns[name] for name in names], moduli)

    @cached_property
    def _few_rows(self) -> FewRows | None:
        """The indices of the values that are numbered; None where they are not all of UInt32."""
        indices = []
        for category in self._numbered.values():
            table = category.table
            if table is None or category.values.modulo or table.num_ids < table.values:
                return None
            if not isinstance(table.index, IntegerIndex) or table.index.dtype != pl.UInt32:
                return None
            indices.append(table.index)
        return FewRows(indices)

    @cached_property
    def _text_columns(self) -> tuple[str, ...]:
        return tuple(name for one in self._categories.values() for name in one.text_columns)

    @cached_property
    def accepted(self) -> set[tuple[object, ...]]:
        """Names and types of columns that were checked before, of frames in memory."""
        return set()

    @cached_property
    def _readings(self) -> dict[str, NumberReading]:
        """Number columns by name -> how they are read, by themselves or in the key of a cross."""
        crossed = (number for one in self._categories.values() for number in one.buckets)
        return {number.name: number.reading for number in (*self._numbers.values(), *crossed)}

    @cached_property
    def _lists(self) -> tuple[List, ...]:
        return tuple(feature for feature in self.features if isinstance(feature, List))

    @cached_property
    def _numbers(self) -> dict[int, Number]:
        """Numbers by their place among the features."""
        return {
            k: feature for k, feature in enumerate(self.features) if isinstance(feature, Number)
        }

    @cached_property
    def _categories(self) -> dict[int, Category]:
        places = enumerate(self.features)
        return {k: feature for k, feature in places if isinstance(feature, Category)}

    @cached_property
    def _numbered(self) -> dict[int, Category]:
        """Categories that are numbered over a whole log."""
        return {
            k: category for k, category in self._categories.items() if category.values.whole_log
        }

    @cached_property
    def numbered_columns(self) -> tuple[str, ...]:
        """The raw columns whose values are numbered over a whole log."""
        return tuple(category.columns[0] for category in self._numbered.values())

    @cached_property
    def tables(self) -> list[Vocabulary]:
        """The values that are in files, each once, however many features share it."""
        tables: list[Vocabulary] = []
        for feature in self.features:
            tables += [table for table in feature.tables() if table not in tables]
        return tables

    @property
    def files(self) -> tuple[str, ...]:
        """The files that features need beside features.json."""
        return tuple(vocabulary_file(number) for number in range(len(self.tables)))

    def to_dict(self) -> dict[str, Any]:
        """Return what `features.json` holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "columns": toml.to_dict(self.columns),
            "labels": [label.to_dict() for label in self.targets],
            "layout": self.layout.to_dict() if self.layout else None,
            "reading": self.reading.to_dict(),
            "tables": [table.to_dict() for table in self.tables],
            "features": [feature.to_dict(self.tables) for feature in self.features],
        }

    def save(self, folder: Path | str) -> None:
        """Write these features into a folder, by hard links where they are in another one."""
        target = Path(folder)
        (target / VOCABULARY_FOLDER).mkdir(parents=True, exist_ok=True)
        for file, table in zip(self.files, self.tables, strict=True):
            table.save(target / file)
        # Last, so that a folder with a features.json has everything it names.
        if self.folder is None:
            write_json(target / FEATURES_FILE, self.to_dict())
        else:
            link(self.folder / FEATURES_FILE, target / FEATURES_FILE)

    @classmethod
    def load(cls, folder: Path | str) -> "Features":
        """Open the features of a prepared dataset or of a run directory.

        Raises:
            DatasetError: The folder has none, damaged ones, or ones of another version.

        """
        path = Path(folder) / FEATURES_FILE
        try:
            values = read_json(path, DatasetError, keys=("format", "version"))
            if values["format"] != FORMAT or values["version"] != VERSION:
                raise DatasetError(
                    f"{path} is {values['format']} version {values['version']}, expected "
                    f"{FORMAT} version {VERSION}; use the release that wrote it"
                )
            columns = toml.from_dict(values["columns"])
            tables = [
                Vocabulary.from_dict(table, Path(folder) / vocabulary_file(number))
                for number, table in enumerate(values["tables"])
            ]
            return cls(
                source=values["source"],
                columns=columns,
                targets=tuple(Label.from_dict(label, columns.task) for label in values["labels"]),
                features=tuple(
                    _KINDS[feature["type"]].from_dict(feature, tables)
                    for feature in values["features"]
                ),
                layout=Layout.from_dict(values["layout"]) if values["layout"] else None,
                reading=Reading(**values.get("reading", {})),
                folder=Path(folder),
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DatasetError(f"{path} is damaged ({error}); prepare the dataset again") from error

    def preload(self) -> "Features":
        """Read what is in files, which may go then; return these features."""
        for table in self.tables:
            _ = table.frame
        return self

    def _input(self, name: str, *, category: bool) -> tuple[Feature, Input]:
        return next(
            (feature, model_input)
            for feature, model_input in self.inputs
            if model_input.name == name and (model_input.num_embeddings is not None) == category
        )


def vocabulary_file(number: int) -> str:
    """Return the file of the values with a number, in a folder of features."""
    # Numbered, because a column's name may be anything.
    return f"{VOCABULARY_FOLDER}/{number:04}.parquet"
