"""Raw frames -> arrays as the model takes them, with the vocabularies of a prepared dataset.

A folder holds an encoder as `encoder.json` and `vocabulary/<feature>.parquet`: a prepared dataset
does, and a run directory, so that it can score raw logs on its own.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.dense import dense_array, dense_columns
from dlrm.data.encoded import Encoded
from dlrm.data.store import FEATURES_FILE, VOCABULARY_FOLDER
from dlrm.data.vocabulary import Vocabulary, fold
from dlrm.errors import DatasetError
from dlrm.schema import DenseFeature, Feature, Schema, Table

ENCODER_FILE = FEATURES_FILE
TRANSFORM = "log1p"
_VERSION = 1


@dataclass(frozen=True)
class Encoder:
    """Turns raw frames into arrays."""

    source: str
    """Name of the source whose frames it takes."""
    dense: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str
    rows: tuple[int, ...]
    """Rows of each table."""
    max_rows_per_table: int | None
    """Values are taken modulo this first; None leaves them."""
    folder: Path
    """Where its files are."""
    _vocabularies: dict[str, Vocabulary] = field(default_factory=dict, repr=False, compare=False)

    @property
    def schema(self) -> Schema:
        """What the arrays mean."""
        return Schema(
            dense=tuple(DenseFeature(name=name, transform=TRANSFORM) for name in self.dense),
            tables=tuple(
                Table(name=name, num_embeddings=rows)
                for name, rows in zip(self.categorical, self.rows, strict=True)
            ),
            features=tuple(Feature(name=name, table=name) for name in self.categorical),
            labels=(self.label,),
        )

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the vocabulary of a feature; read at first use."""
        if name not in self._vocabularies:
            found = Vocabulary.load(self.folder / VOCABULARY_FOLDER, name)
            expected = self.rows[self.categorical.index(name)]
            if found.num_embeddings != expected:
                raise DatasetError(
                    f"the vocabulary of {name} in {self.folder} has {found.num_embeddings - 1} values, "
                    f"expected {expected - 1}; prepare the dataset again"
                )
            self._vocabularies[name] = found
        return self._vocabularies[name]

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return numbers of a feature as the log has them; missing and negative ones are 0."""
        del name
        return np.expm1(values.astype(np.float64))

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Return a frame of the source as arrays.

        Args:
            frame: n rows with the label, N number columns and T category columns.

        Raises:
            DatasetError: A column is absent or of another kind than the vocabulary.

        """
        absent = [n for n in (*self.dense, *self.categorical, self.label) if n not in frame.columns]
        if absent:
            raise DatasetError(f"the rows have no column {absent[0]}; they have {frame.columns}")
        ids = np.empty((frame.height, len(self.categorical)), np.int32)
        for table, name in enumerate(self.categorical):
            ids[:, table] = self.vocabulary(name).ids(fold(frame[name], self.max_rows_per_table))
        dense = dense_array(dense_columns(frame, self.dense))
        return Encoded(dense, ids, frame[self.label].to_numpy().reshape(-1, 1))

    def to_dict(self) -> dict[str, Any]:
        """Return what `encoder.json` holds."""
        return {
            "format": "dlrm-encoder",
            "version": _VERSION,
            "source": self.source,
            "label": self.label,
            "dense": [{"name": name, "transform": TRANSFORM} for name in self.dense],
            "categorical": [
                {"name": name, "rows": rows}
                for name, rows in zip(self.categorical, self.rows, strict=True)
            ],
            "max_rows_per_table": self.max_rows_per_table,
        }

    @classmethod
    def load(cls, folder: Path | str) -> "Encoder":
        """Open the encoder of a prepared dataset or of a run directory.

        Raises:
            DatasetError: The folder has none, or one of another version.

        """
        path = Path(folder) / ENCODER_FILE
        try:
            values = json.loads(path.read_text())
            if values["format"] != "dlrm-encoder" or values["version"] != _VERSION:
                raise DatasetError(
                    f"{path} is {values['format']} version {values['version']}, expected "
                    f"dlrm-encoder version {_VERSION}; use the release that wrote it"
                )
            return cls(
                source=values["source"],
                dense=tuple(feature["name"] for feature in values["dense"]),
                categorical=tuple(feature["name"] for feature in values["categorical"]),
                label=values["label"],
                rows=tuple(feature["rows"] for feature in values["categorical"]),
                max_rows_per_table=values["max_rows_per_table"],
                folder=Path(folder),
            )
        except OSError as error:
            problem = f"{folder} holds no encoder ({ENCODER_FILE}: {error.strerror})"
            expected = "expected a prepared dataset or a run directory"
            raise DatasetError(f"{problem}; {expected}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} is damaged ({error}); prepare the dataset again") from error

    def save(self, folder: Path | str) -> None:
        """Copy the encoder's files into another folder, by hard links where that is possible."""
        target = Path(folder)
        (target / VOCABULARY_FOLDER).mkdir(parents=True, exist_ok=True)
        for name in self.categorical:
            file = f"{VOCABULARY_FOLDER}/{name}.parquet"
            link(self.folder / file, target / file)
        # Last, so that a folder with an encoder.json has everything it names.
        link(self.folder / ENCODER_FILE, target / ENCODER_FILE)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no links."""
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except FileNotFoundError:
        raise DatasetError(f"{source} is missing; prepare the dataset again") from None
    finally:
        temporary.unlink(missing_ok=True)
