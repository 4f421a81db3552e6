"""A prepared dataset: a folder of arrays that are mapped into memory, and a manifest.

    manifest.json              format, schema, options, fingerprint, counts, hash of every file
    encoder.json, vocabulary/  how raw values became ids (dlrm.data.encoder)
    <split>/dense.bin          (n, N) float32, row-major
    <split>/ids.bin            (n, T) int32, row-major: a batch is one slice; (L,) with bags
    <split>/offsets.bin        (n*T + 1,) int64, where each bag begins; only with bags
    <split>/labels.bin         (n,) uint8
    <split>/truth.bin          (n,) float32, the probability a label was drawn with, where known

Splits are `train`, `validation` and `test`; any may be empty. Where a categorical feature is
multi-hot, all of them are stored as bags of ids, sample by sample and table by table, as
`dlrm.batch.Batch` has them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError, unknown
from dlrm.schema import Schema

FORMAT, VERSION = "dlrm-dataset", 1
BAGS_VERSION = 2
"""Of datasets with bags, so that a release that knows none says so."""
MANIFEST_FILE = "manifest.json"
ARRAYS = ("dense", "ids", "offsets", "labels", "truth")
_AGAIN = "prepare it again (with --force)"


@dataclass(frozen=True, slots=True)
class Split:
    """The samples of a split, mapped read-only into memory."""

    name: str
    dense: NDArray[np.float32]
    """(n, N)"""
    ids: NDArray[np.int32]
    """(n, T) when one-hot, else (L,)"""
    labels: NDArray[np.uint8]
    """(n,)"""
    truth: NDArray[np.float32] | None = None
    """(n,) the probability each label was drawn with; None where nobody knows"""
    offsets: NDArray[np.int64] | None = None
    """None when one-hot, else (n*T + 1,) from 0 to L, where each bag begins"""

    def __len__(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared dataset on disk."""

    path: Path
    schema: Schema
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> "Dataset":
        """Open a prepared dataset; checks the format and the size of every file.

        Raises:
            DatasetError: It is not one, of another version, or its files do not fit its manifest.

        """
        path = Path(path)
        manifest = read_manifest(path)
        try:
            for file, size_bytes, _ in _files(manifest):
                _check_size(path / file, size_bytes)
            schema = Schema.from_dict(manifest["schema"])
            _check_bags(path / MANIFEST_FILE, manifest, schema)
            return cls(path, schema, manifest)
        except (KeyError, TypeError) as error:
            problem = f"{path / MANIFEST_FILE} lacks {error}"
            raise DatasetError(f"{problem}; {_AGAIN}") from error

    @property
    def source(self) -> str:
        """Name of the source, e.g. `criteo`."""
        return self.manifest["source"]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.manifest["splits"])

    def split(self, name: str) -> Split:
        """Map a split into memory.

        Raises:
            ConfigError: There is no such split; lists the choices.
            DatasetError: The offsets of its bags do not fit its ids.

        """
        if name not in self.manifest["splits"]:
            raise unknown("split", name, self.splits)
        arrays = self.manifest["splits"][name]["arrays"]
        mapped = {array: _map(self.path, record) for array, record in arrays.items()}
        ids, offsets = mapped["ids"], mapped.get("offsets")
        if offsets is not None and (offsets[0] != 0 or offsets[-1] != len(ids)):
            raise DatasetError(
                f"{self.path / arrays['offsets']['file']} goes from {offsets[0]} to {offsets[-1]}, "
                f"expected 0 to {len(ids)}, the number of ids; {_AGAIN}"
            )
        return Split(
            name, mapped["dense"], ids, mapped["labels"], mapped.get("truth"), offsets=offsets
        )

    @property
    def columns(self) -> list[dict[str, str]]:
        """What the columns of a table were taken for: `name`, `kind`, `taken_for`, `why`."""
        return self.manifest.get("columns", [])

    def summary(self) -> dict[str, Any]:
        """Return what a run keeps of its dataset: where it is, what is in it, and its columns."""
        return {
            "path": str(self.path),
            "source": self.source,
            "splits": {
                name: {"rows": split["rows"], "clicks": split["clicks"]}
                for name, split in self.manifest["splits"].items()
            },
            "features": [
                {key: feature[key] for key in ("name", "kind", "rows", "missing_rate")}
                for feature in self.manifest["features"]
            ],
            "columns": self.columns,
            "bad_rows": self.manifest["bad_rows"]["total"],
        }


def version_of(schema: Schema) -> int:
    """Return the version of the format that holds a dataset of this schema."""
    bags = any(feature.multi_hot for feature in schema.categorical)
    return BAGS_VERSION if bags else VERSION


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset.

    Raises:
        DatasetError: The folder is missing, not a prepared dataset, or of another version.

    """
    file = path / MANIFEST_FILE
    if not path.exists():
        raise DatasetError(f"{path} does not exist; `dlrm data prepare` makes a dataset")
    if not path.is_dir() or not file.exists():
        problem = f"{path} is not a prepared dataset (it has no {MANIFEST_FILE})"
        raise DatasetError(f"{problem}; `dlrm data prepare` makes one")
    try:
        manifest = json.loads(file.read_text())
        kind, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file} is damaged ({error}); {_AGAIN}") from error
    if kind != FORMAT:
        raise DatasetError(f'{file} is of format "{kind}", expected "{FORMAT}"')
    if version not in (VERSION, BAGS_VERSION):
        raise DatasetError(
            f"{path} is of format version {version}, this release reads {VERSION} and "
            f"{BAGS_VERSION}; {'upgrade opendlrm' if version > BAGS_VERSION else _AGAIN}"
        )
    return manifest


def verify(dataset: Dataset) -> None:
    """Read every byte of a dataset and compare it with the hashes in its manifest.

    Raises:
        DatasetError: A file was altered; names it.

    """
    for file, size_bytes, sha256 in _files(dataset.manifest):
        _check_size(dataset.path / file, size_bytes)
        with (dataset.path / file).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise DatasetError(
                f"{dataset.path / file} was altered: its hash is {found[:12]}, the manifest says "
                f"{sha256[:12]}; {_AGAIN}"
            )


def file_record(path: Path) -> dict[str, Any]:
    """Return size and hash of a file, as the manifest keeps them."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _files(manifest: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return path, size and hash of every file that a manifest names."""
    arrays = [
        record for split in manifest["splits"].values() for record in split["arrays"].values()
    ]
    return [(record["file"], record["bytes"], record["sha256"]) for record in arrays] + [
        (file, record["bytes"], record["sha256"]) for file, record in manifest["files"].items()
    ]


def _check_bags(file: Path, manifest: dict[str, Any], schema: Schema) -> None:
    """Raise a DatasetError unless ids are stored as the schema says: one each, or as bags."""
    version = version_of(schema)
    if manifest["version"] != version:
        kind = "bags of ids" if version == BAGS_VERSION else "no bags of ids"
        problem = f"{file} is of version {manifest['version']}, but its schema has {kind}"
        raise DatasetError(f"{problem}, which is version {version}; {_AGAIN}")
    tables = len(schema.categorical)
    for name, split in manifest["splits"].items():
        shapes = {array: record["shape"] for array, record in split["arrays"].items()}
        if version == BAGS_VERSION:
            fits = len(shapes["ids"]) == 1 and shapes["offsets"] == [split["rows"] * tables + 1]
        else:
            fits = shapes["ids"] == [split["rows"], tables] and "offsets" not in shapes
        if not fits:
            ids, offsets = shapes["ids"], shapes.get("offsets")
            problem = f"{file}: ids {ids} and offsets {offsets} of {name} do not fit its"
            raise DatasetError(f"{problem} {split['rows']} rows of {tables} features; {_AGAIN}")


def _check_size(file: Path, size_bytes: int) -> None:
    """Raise a DatasetError unless a file is there and as long as expected."""
    if not file.is_file():
        raise DatasetError(f"{file} is missing; {_AGAIN}")
    found = file.stat().st_size
    if found != size_bytes:
        problem = f"{file} has {found} bytes, the manifest says {size_bytes}"
        raise DatasetError(f"{problem}; {_AGAIN}")


def _map(path: Path, record: dict[str, Any]) -> NDArray[Any]:
    """Map an array into memory, read-only."""
    shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
    if 0 in shape:
        # There is nothing to map in an empty file.
        empty = np.empty(shape, dtype)
        empty.setflags(write=False)
        return empty
    return np.memmap(path / record["file"], dtype, "r", shape=shape)
