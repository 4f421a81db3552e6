"""A prepared dataset: a folder of arrays that are mapped into memory, and a manifest.

    manifest.json                format, schema, options, fingerprint, counts, hash of every file
                                 and of itself
    features.json, vocabulary/   how raw values became inputs (dlrm.data.features)
    <split>/dense.bin            (n, N) float32, row-major
    <split>/ids.bin              (n, T1) int32, row-major: a batch is one slice
    <split>/labels.bin           (n, K) uint8; float32 for regression
    <split>/list_ids.bin         (L,) int32, where the schema has bags or sequences: their ids,
    <split>/list_offsets.bin     (n*F + 1,) int64, and where each list begins (dlrm.data.encoded)
    <split>/weights.bin          (n,) float32, how much a sample counts, where samples weigh
    <split>/truth.bin            (n,) float32, the probability a label was drawn with, where known

Splits are `train`, `validation` and `test`; any may be empty. Of each the manifest has `rows`, and
`positives` by label, or for regression `mean`, `min` and `max` by label.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Lists
from dlrm.errors import DatasetError, unknown
from dlrm.file_records import check_files
from dlrm.files import recover
from dlrm.json_file import read_json
from dlrm.schema import Schema

FORMAT, VERSION = "dlrm-dataset", 4
MANIFEST_FILE, FEATURES_FILE, VOCABULARY_FOLDER = "manifest.json", "features.json", "vocabulary"
LIST_IDS, LIST_OFFSETS = "list_ids", "list_offsets"
_AGAIN = "prepare it again (with --force)"


def array_layout(
    schema: Schema, *, weights: bool, truth: bool
) -> dict[str, tuple[str, int | None]]:
    """Return the arrays of a split: their types and columns, None for arrays of one dimension."""
    layout: dict[str, tuple[str, int | None]] = {
        "dense": ("<f4", len(schema.dense)),
        "ids": ("<i4", len(schema.one_hot_features)),
        "labels": ("|u1" if schema.task == "classification" else "<f4", schema.num_labels),
    }
    if schema.list_features:
        layout |= {LIST_IDS: ("<i4", None), LIST_OFFSETS: ("<i8", None)}
    if weights:
        layout["weights"] = ("<f4", None)
    if truth:
        layout["truth"] = ("<f4", None)
    return layout


@dataclass(frozen=True, slots=True)
class Split:
    """The samples of a split, mapped read-only into memory."""

    name: str
    dense: NDArray[np.float32]
    """(n, N)"""
    ids: NDArray[np.int32]
    """(n, T1), of the features with one id a sample"""
    labels: NDArray[Any]
    """(n, K) uint8; float32 for regression"""
    lists: Lists | None = None
    """Ids (L,) and offsets (n*F + 1,) of bags and sequences; None where there are none"""
    weights: NDArray[np.float32] | None = None
    """(n,) how much each sample counts; None for 1 each"""
    truth: NDArray[np.float32] | None = None
    """(n,) the probability each label was drawn with; None where nobody knows"""

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
        """Open a prepared dataset; checks the format, and every file as far as it costs no time.

        Raises:
            DatasetError: It is not one, of another version, or its files do not fit its manifest.

        """
        path = Path(path)
        manifest = read_manifest(path)
        try:
            schema = Schema.from_dict(manifest["schema"])
            _check_manifest(path / MANIFEST_FILE, manifest, schema)
            check_files(path, _records(manifest), DatasetError, advice=_AGAIN)
            return cls(path, schema, manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{path / MANIFEST_FILE} is no manifest of ours ({error!r})"
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
            DatasetError: The offsets of its lists do not fit their ids.

        """
        if name not in self.manifest["splits"]:
            raise unknown("split", name, self.splits)
        records = self.manifest["splits"][name]["arrays"]
        mapped = {array: map_array(self.path, record) for array, record in records.items()}
        lists = None
        if LIST_OFFSETS in mapped:
            lists = Lists(mapped.pop(LIST_IDS), mapped.pop(LIST_OFFSETS))
            if lists.offsets[0] != 0 or lists.offsets[-1] != len(lists.ids):
                raise DatasetError(
                    f"{self.path / records[LIST_OFFSETS]['file']} goes from {lists.offsets[0]} to "
                    f"{lists.offsets[-1]}, expected 0 to {len(lists.ids)}, the number of ids; "
                    f"{_AGAIN}"
                )
        return Split(name, lists=lists, **mapped)

    @property
    def columns(self) -> list[dict[str, str]]:
        """Columns of a table and what was inferred: `name`, `kind`, `taken_for`, `why`."""
        return self.manifest.get("columns", [])

    def summary(self) -> dict[str, Any]:
        """Return what a run keeps of its dataset: where it is, what is in it, and its columns."""
        counted = self.manifest.get("counted_rows", self.manifest["rows"])
        keys = ("name", "kind", "num_embeddings", "missing_rate")
        return {
            "path": str(self.path),
            "source": self.source,
            "splits": {
                name: {key: value for key, value in split.items() if key != "arrays"}
                for name, split in self.manifest["splits"].items()
            },
            "features": [
                {
                    **{key: feature[key] for key in keys},
                    "rare_rate": None
                    if feature.get("rare") is None
                    else feature["rare"] / max(1, counted),
                }
                for feature in self.manifest["features"]
            ],
            "columns": self.columns,
            "notes": self.manifest.get("division", []),
            "bad_rows": self.manifest["bad_rows"]["total"],
        }


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset."""
    file = path / MANIFEST_FILE
    recover(path)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; `dlrm data prepare` makes a dataset")
    if not path.is_dir() or not file.exists():
        problem = f"{path} is not a prepared dataset (it has no {MANIFEST_FILE})"
        raise DatasetError(f"{problem}; `dlrm data prepare` makes one")
    manifest = read_json(file, DatasetError, keys=("format", "version"), advice=_AGAIN)
    kind, version = manifest["format"], manifest["version"]
    if kind != FORMAT:
        raise DatasetError(f'{file} is of format "{kind}", expected "{FORMAT}"')
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        problem = f"{path} is of format version {version}, this release reads {VERSION}"
        raise DatasetError(f"{problem}; {'upgrade opendlrm' if newer else _AGAIN}")
    return read_json(file, DatasetError, sealed=True, advice=_AGAIN)


def verify(dataset: Dataset) -> None:
    """Read every byte of a dataset and compare it with the hashes in its manifest.

    Raises:
        DatasetError: A file was altered; names it.

    """
    records = _records(dataset.manifest)
    check_files(dataset.path, records, DatasetError, wholly=True, advice=_AGAIN)


def _records(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    splits = manifest["splits"].values()
    arrays = [record for split in splits for record in split["arrays"].values()]
    return {record["file"]: record for record in arrays} | manifest["files"]


def _check_manifest(file: Path, manifest: dict[str, Any], schema: Schema) -> None:
    """Raise a DatasetError unless files and arrays are those that `prepare` makes of the schema."""
    for split, values in manifest["splits"].items():
        records, rows = values["arrays"], values["rows"]
        layout = array_layout(schema, weights="weights" in records, truth="truth" in records)
        if records.keys() != layout.keys():
            problem = f"{file}: {split} has the arrays {', '.join(records)}"
            raise DatasetError(f"{problem}, its schema needs {', '.join(layout)}; {_AGAIN}")
        shapes = {
            LIST_OFFSETS: [rows * len(schema.list_features) + 1],
            LIST_IDS: records.get(LIST_IDS, {}).get("shape", [])[:1],
        }
        for array, (dtype, columns) in layout.items():
            record, name = records[array], array_file(split, array)
            if record["file"] != name:
                problem = f"{file}: {array} of {split} is in {record['file']!r}"
                raise DatasetError(f"{problem}, expected {name}; {_AGAIN}")
            shape = shapes.get(array, [rows] if columns is None else [rows, columns])
            if (record["shape"], record["dtype"]) != (shape, dtype):
                raise DatasetError(
                    f"{file}: {array} {record['shape']} of type {record['dtype']} of {split} does "
                    f"not fit its {rows} rows, expected {shape} of type {dtype}; {_AGAIN}"
                )
    for name in manifest["files"]:
        if name != FEATURES_FILE and not name.startswith(f"{VOCABULARY_FOLDER}/"):
            raise DatasetError(f"{file}: {name!r} is no file of a dataset; {_AGAIN}")


def array_file(split: str, array: str) -> str:
    """Return the file of an array of a split."""
    return f"{split}/{array}.bin"


def map_array(path: Path, record: dict[str, Any]) -> NDArray[Any]:
    """Map an array into memory, read-only."""
    shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
    if 0 in shape:
        # There is nothing to map in an empty file.
        empty = np.empty(shape, dtype)
        empty.setflags(write=False)
        return empty
    return np.memmap(path / record["file"], dtype, "r", shape=shape)
