import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlrm import file_records
from dlrm.data.store import VERSION, Dataset, verify
from dlrm.errors import ConfigError, DatasetError
from dlrm.file_records import file_record
from dlrm.json_file import write_sealed
from dlrm.schema import Schema

from . import ragged

ONE_HOT = Schema.one_hot(13, [10] * 26)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Rows with one id of each feature, and a file beside the arrays."""
    block = ragged.log(70, ONE_HOT)
    pieces = [("train", block, slice(0, 60)), ("test", block, slice(60, 70))]
    written = ragged.write(tmp_path / "out", pieces, ONE_HOT)
    (written.path / "vocabulary").mkdir()
    (written.path / "vocabulary/C7.parquet").write_bytes(b"values")
    record = file_record(written.path / "vocabulary/C7.parquet")
    files = {"vocabulary/C7.parquet": record}
    write_sealed(written.path / "manifest.json", {**written.manifest, "files": files})
    return Dataset.open(written.path)


@pytest.fixture
def lists(tmp_path) -> Dataset:
    """Rows with lists beside one-hot ids."""
    block = ragged.log(50)
    pieces = [("train", block, slice(0, 30)), ("test", block, slice(30, 50))]
    return ragged.write(tmp_path / "lists", pieces)


def test_arrays_are_mapped_and_read_only(dataset):
    train = dataset.split("train")
    assert isinstance(train.ids, np.memmap)
    assert len(train) == 60
    assert train.labels.shape == (60, 1)
    for array in (train.dense, train.ids, train.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert (train.lists, train.weights, train.truth) == (None, None, None)
    assert sorted(path.name for path in (dataset.path / "train").iterdir()) == [
        "dense.bin",
        "ids.bin",
        "labels.bin",
    ]
    assert dataset.manifest["version"] == VERSION == 4


def test_empty_splits_have_their_shape(dataset):
    empty = dataset.split("validation")
    assert (len(empty), empty.dense.shape, empty.ids.shape) == (0, (0, 13), (0, 26))
    assert empty.labels.shape == (0, 1)
    verify(dataset)


def test_an_unknown_split_lists_the_choices(dataset):
    with pytest.raises(ConfigError, match=r'"dev"; choose one of: train, validation, test'):
        dataset.split("dev")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("file", ["train/ids.bin", "test/labels.bin", "vocabulary/C7.parquet"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(truncate, "bytes, its record says"), (lengthen, "bytes, its"), (Path.unlink, "is missing")],
)
def test_a_file_of_another_size_is_named(dataset, file, damage, message):
    damage(dataset.path / file)
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.open(dataset.path)
    assert str(dataset.path / file) in str(caught.value)
    assert "prepare it again" in str(caught.value)
    with pytest.raises(DatasetError, match=message):
        verify(dataset)


@pytest.mark.parametrize("file", ["train/ids.bin", "test/dense.bin", "vocabulary/C7.parquet"])
def test_an_altered_byte_is_found_at_once_or_when_verifying(dataset, file, monkeypatch):
    path = dataset.path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="was altered") as caught:
        Dataset.open(dataset.path)
    assert str(path) in str(caught.value)
    # Large files are not hashed whenever a dataset is opened.
    monkeypatch.setattr(file_records, "CHEAP_BYTES", 0)
    opened = Dataset.open(dataset.path)
    with pytest.raises(DatasetError, match="was altered"):
        verify(opened)


def altered(dataset: Dataset, **values) -> Path:
    path = dataset.path / "manifest.json"
    manifest = json.loads(path.read_text()) | values
    del manifest["sha256"]
    write_sealed(path, manifest)
    return dataset.path


@pytest.mark.parametrize("version", [0, 1, 2, 3, "4"])
def test_former_versions_are_prepared_again(dataset, version):
    with pytest.raises(DatasetError, match=rf"version {version}, .* reads 4; prepare it again"):
        Dataset.open(altered(dataset, version=version))


def test_manifests_that_cannot_be_read(dataset, tmp_path):
    with pytest.raises(DatasetError, match="version 5, this release reads 4; upgrade opendlrm"):
        Dataset.open(altered(dataset, version=5))
    with pytest.raises(DatasetError, match='format "parquet", expected "dlrm-dataset"'):
        Dataset.open(altered(dataset, version=4, format="parquet"))
    with pytest.raises(DatasetError, match="is no manifest of ours"):
        Dataset.open(altered(dataset, format="dlrm-dataset", splits={"train": {}}))
    (dataset.path / "manifest.json").write_text("{half")
    with pytest.raises(DatasetError, match=r"manifest\.json: "):
        Dataset.open(dataset.path)
    (dataset.path / "manifest.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"manifest\.json: "):
        Dataset.open(dataset.path)
    (dataset.path / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        Dataset.open(dataset.path)
    with pytest.raises(DatasetError, match="does not exist"):
        Dataset.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        Dataset.open(tmp_path / "file")


def test_the_summary_is_what_a_run_keeps(dataset):
    summary = dataset.summary()
    assert summary["source"] == "made up"
    assert summary["splits"]["train"] == {
        "rows": 60,
        "positives": {"label": int(dataset.split("train").labels.sum())},
    }
    assert len(summary["features"]) == 39
    assert set(summary["features"][0]) == {
        "name",
        "kind",
        "num_embeddings",
        "missing_rate",
        "rare_rate",
    }
    assert json.loads(json.dumps(summary)) == summary


def test_the_summary_of_real_numbers(tmp_path):
    schema = replace(ragged.SCHEMA, labels=("stars", "minutes"), task="regression")
    block = ragged.log(20, schema)
    written = ragged.write(tmp_path / "out", [("train", block, slice(0, 20))], schema)
    splits = written.summary()["splits"]
    assert splits["train"]["min"] == {"stars": 0.25, "minutes": 1.25}
    assert splits["train"]["max"] == {"stars": 1.25, "minutes": 2.25}
    assert block.labels is not None
    assert splits["train"]["mean"]["minutes"] == pytest.approx(block.labels[:, 1].mean())
    assert splits["test"] == dict.fromkeys(("mean", "min", "max"), dict.fromkeys(schema.labels)) | {
        "rows": 0
    }
    assert written.split("train").labels.dtype == np.float32


def test_lists_are_mapped_beside_their_offsets(lists):
    train, empty = lists.split("train"), lists.split("validation")
    assert isinstance(train.lists.offsets, np.memmap)
    assert train.ids.shape == (30, 2)
    assert train.lists.offsets.shape == (61,)
    assert train.lists.ids.shape == (train.lists.offsets[-1],)
    with pytest.raises(ValueError, match="read-only"):
        train.lists.offsets[0] = 0
    assert (len(empty), empty.lists.ids.shape, empty.lists.offsets.tolist()) == (0, (0,), [0])
    verify(lists)


@pytest.mark.parametrize("place", [0, -8])
def test_offsets_that_do_not_fit_their_ids_are_named(lists, place, monkeypatch):
    path = lists.path / "test/list_offsets.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(file_records, "CHEAP_BYTES", 0)
    opened = Dataset.open(lists.path)
    with pytest.raises(DatasetError, match=r"list_offsets.bin goes from \d+ to \d+, expected 0 to"):
        opened.split("test")
    with pytest.raises(DatasetError, match=r"test/list_offsets.bin was altered"):
        verify(opened)


def test_a_manifest_that_does_not_fit_its_arrays(lists):
    whole = lists.schema.to_dict()
    fewer = {**whole, "features": whole["features"][:3]}
    one_hot = {**whole, "features": [whole["features"][0], whole["features"][2]]}
    with pytest.raises(DatasetError, match=r"list_offsets \[61\] .* of train does not fit its 30"):
        Dataset.open(altered(lists, schema=fewer))
    with pytest.raises(DatasetError, match=r"list_offsets, its schema needs dense, ids, labels;"):
        Dataset.open(altered(lists, schema=one_hot))
    with pytest.raises(DatasetError, match=r"labels \[30, 1\] of type \|u1 .* expected .* <f4;"):
        Dataset.open(altered(lists, schema={**whole, "task": "regression"}))
    with pytest.raises(DatasetError, match=r"labels \[30, 1\] .* expected \[30, 2\]"):
        Dataset.open(altered(lists, schema={**whole, "labels": ["click", "sale"]}))
    splits = json.loads(json.dumps(lists.manifest["splits"]))
    splits["test"]["rows"] += 1
    with pytest.raises(DatasetError, match=r"dense \[20, 2\] .* of test does not fit its 21 rows"):
        Dataset.open(altered(lists, schema=whole, splits=splits))
    splits["test"]["rows"] -= 1
    del splits["test"]["arrays"]["list_offsets"]
    with pytest.raises(DatasetError, match=r"test has the arrays .*, its schema needs"):
        Dataset.open(altered(lists, splits=splits))


def test_names_lead_nowhere_else(dataset, tmp_path):
    secret = tmp_path / "scores"
    secret.write_bytes((dataset.path / "train/labels.bin").read_bytes())
    splits = json.loads(json.dumps(dataset.manifest["splits"]))
    for name in ("../scores", str(secret), "train/../../scores", "train/ids.bin"):
        splits["train"]["arrays"]["labels"]["file"] = name
        with pytest.raises(DatasetError, match=r"manifest\.json: labels of train is in"):
            Dataset.open(altered(dataset, splits=splits))
    splits["train"]["arrays"]["labels"]["file"] = "train/labels.bin"
    for name in (
        "../scores",
        str(secret),
        "vocabulary/../../scores",
        "vocabulary//x",
        "vocabulary",
    ):
        files = {name: file_record(secret)}
        with pytest.raises(DatasetError, match=r"is no file of|is not the name of"):
            Dataset.open(altered(dataset, splits=splits, files=files))


def test_a_link_that_leaves_the_dataset_is_refused(dataset, tmp_path):
    (dataset.path / "train/labels.bin").rename(tmp_path / "labels")
    (dataset.path / "train/labels.bin").symlink_to(tmp_path / "labels")
    with pytest.raises(DatasetError, match="leads out of its folder"):
        Dataset.open(dataset.path)
    (dataset.path / "train/labels.bin").unlink()
    (dataset.path / "train/labels.bin").symlink_to("labels.bin")
    with pytest.raises(DatasetError, match="leads nowhere"):
        Dataset.open(dataset.path)
