import json
from pathlib import Path

import numpy as np
import pytest

from dlrm.data.prepare import prepare
from dlrm.data.store import Dataset, verify
from dlrm.errors import ConfigError, DatasetError

from . import ragged
from .logs import log, source


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return prepare(source(tmp_path / "raw", log(70)), tmp_path / "out").dataset


def test_arrays_are_mapped_and_read_only(dataset):
    train = dataset.split("train")
    assert isinstance(train.ids, np.memmap)
    assert len(train) == 60
    for array in (train.dense, train.ids, train.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert train.truth is None


def test_empty_splits_have_their_shape(tmp_path):
    one = prepare(source(tmp_path / "raw", log(1)), tmp_path / "out").dataset
    empty = one.split("test")
    assert (len(empty), empty.dense.shape, empty.ids.shape) == (0, (0, 13), (0, 26))
    assert len(one.split("train")) == 1
    verify(one)


def test_an_unknown_split_lists_the_choices(dataset):
    with pytest.raises(ConfigError, match=r'"dev"; choose one of: train, validation, test'):
        dataset.split("dev")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("file", ["train/ids.bin", "test/labels.bin", "vocabulary/C7.parquet"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [(truncate, "bytes, the manifest says"), (lengthen, "bytes, the"), (Path.unlink, "is missing")],
)
def test_a_file_of_another_size_is_named(dataset, file, damage, said):
    damage(dataset.path / file)
    with pytest.raises(DatasetError, match=said) as caught:
        Dataset.open(dataset.path)
    assert str(dataset.path / file) in str(caught.value)
    assert "prepare it again" in str(caught.value)
    with pytest.raises(DatasetError, match=said):
        verify(dataset)


@pytest.mark.parametrize(
    "file", ["train/ids.bin", "validation/dense.bin", "vocabulary/C1.parquet", "encoder.json"]
)
def test_an_altered_byte_is_found_when_verifying(dataset, file):
    path = dataset.path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    opened = Dataset.open(dataset.path)
    with pytest.raises(DatasetError, match="was altered") as caught:
        verify(opened)
    assert str(path) in str(caught.value)


def altered(dataset: Dataset, **values) -> Path:
    path = dataset.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return dataset.path


def test_manifests_that_cannot_be_read(dataset, tmp_path):
    with pytest.raises(DatasetError, match="version 3, this release reads 1 and 2; upgrade opendl"):
        Dataset.open(altered(dataset, version=3))
    with pytest.raises(DatasetError, match=r"version 0, .* prepare it again"):
        Dataset.open(altered(dataset, version=0))
    with pytest.raises(DatasetError, match="version 2, but its schema has no bags of ids, which"):
        Dataset.open(altered(dataset, version=2))
    with pytest.raises(DatasetError, match='format "parquet", expected "dlrm-dataset"'):
        Dataset.open(altered(dataset, version=1, format="parquet"))
    with pytest.raises(DatasetError, match="lacks"):
        Dataset.open(altered(dataset, format="dlrm-dataset", splits={"train": {}}))
    (dataset.path / "manifest.json").write_text("{half")
    with pytest.raises(DatasetError, match="is damaged"):
        Dataset.open(dataset.path)
    (dataset.path / "manifest.json").write_text("[]")
    with pytest.raises(DatasetError, match="is damaged"):
        Dataset.open(dataset.path)
    (dataset.path / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        Dataset.open(dataset.path)
    with pytest.raises(DatasetError, match="does not exist"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        Dataset.open(tmp_path / "raw")


def test_the_summary_is_what_a_run_keeps(dataset):
    summary = dataset.summary()
    assert summary["source"] == "criteo"
    assert summary["splits"]["train"] == {
        "rows": 60,
        "clicks": int(dataset.split("train").labels.sum()),
    }
    assert len(summary["features"]) == 39
    assert set(summary["features"][0]) == {"name", "kind", "rows", "missing_rate"}
    assert json.loads(json.dumps(summary)) == summary


@pytest.fixture
def bags(tmp_path) -> Dataset:
    block = ragged.log(50)
    pieces = [("train", block, slice(0, 30)), ("test", block, slice(30, 50))]
    return ragged.write(tmp_path / "bags", pieces)


def test_bags_are_mapped_beside_their_offsets(bags):
    train, empty = bags.split("train"), bags.split("validation")
    assert isinstance(train.offsets, np.memmap)
    assert (train.offsets.shape, train.ids.shape) == ((91,), (train.offsets[-1],))
    assert train.truth is None
    with pytest.raises(ValueError, match="read-only"):
        train.offsets[0] = 0
    assert empty.offsets is not None
    assert (len(empty), empty.ids.shape, empty.offsets.tolist()) == (0, (0,), [0])
    assert bags.manifest["version"] == 2
    verify(bags)


def test_without_bags_the_format_stays(dataset):
    assert dataset.manifest["version"] == 1
    assert dataset.split("train").offsets is None
    assert not (dataset.path / "train/offsets.bin").exists()


@pytest.mark.parametrize("place", [0, -8])
def test_offsets_that_do_not_fit_their_ids_are_named(bags, place):
    path = bags.path / "test/offsets.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    opened = Dataset.open(bags.path)
    with pytest.raises(DatasetError, match=r"test/offsets.bin goes from \d+ to \d+, expected 0 to"):
        opened.split("test")
    with pytest.raises(DatasetError, match=r"test/offsets.bin was altered"):
        verify(opened)


def test_a_manifest_that_does_not_fit_its_bags(bags):
    one_each = bags.schema.to_dict()
    for feature in one_each["categorical"]:
        feature["multi_hot"] = False
    splits = json.loads(json.dumps(bags.manifest["splits"]))
    with pytest.raises(DatasetError, match=r"version 1, but its schema has bags of ids, .* 2"):
        Dataset.open(altered(bags, version=1))
    with pytest.raises(DatasetError, match=r"ids .* of train do not fit its 30 rows of 3 features"):
        Dataset.open(altered(bags, version=1, schema=one_each))
    splits["test"]["rows"] += 1
    both = {"version": 2, "schema": bags.schema.to_dict()}
    with pytest.raises(DatasetError, match=r"offsets \[61\] of test do not fit its 21 rows"):
        Dataset.open(altered(bags, **both, splits=splits))
    del splits["test"]["arrays"]["offsets"]
    with pytest.raises(DatasetError, match="lacks 'offsets'"):
        Dataset.open(altered(bags, **both, splits=splits))
