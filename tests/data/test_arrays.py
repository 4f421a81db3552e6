"""Rows that are written block by block come back as they were."""

import shutil
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.encoded import Encoded
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset, verify
from dlrm.errors import DatasetError
from dlrm.schema import DenseFeature, Feature, Schema, Table

from .ragged import SCHEMA, log, packed, samples, some_of, unpacked, write

LIST_FEATURES = len(SCHEMA.list_features)


@settings(deadline=None, max_examples=40)
@given(
    samples(),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["classification", "regression"]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_rows_of_blocks_come_back_in_their_splits(
    drawn, dense, one_hot, labels, task, weights, truth, data
):
    features, rows = drawn
    if data.draw(st.booleans()):
        features = 0
    schema = Schema(
        dense=tuple(DenseFeature(name=f"I{i}") for i in range(dense)),
        tables=(Table(name="shared", num_embeddings=100),),
        features=(
            *(Feature(name=f"C{t}", table="shared") for t in range(one_hot)),
            *(
                Feature(name=f"L{f}", table="shared", kind=("bag", "sequence")[f % 2])
                for f in range(features)
            ),
        ),
        labels=tuple(f"y{k}" for k in range(labels)),
        task=task,
    )
    rng = np.random.default_rng(0)
    count = len(rows)
    every: dict[str, Any] = {
        "dense": rng.random((count, dense), np.float32),
        "ids": rng.integers(0, 100, (count, one_hot)).astype(np.int32),
        "labels": rng.integers(0, 2, (count, labels)).astype(np.uint8)
        if task == "classification"
        else rng.normal(size=(count, labels)).astype(np.float32),
        "weights": rng.random(count, np.float32) if weights else None,
        "truth": rng.random(count, np.float32) if truth else None,
    }

    def block(start: int, stop: int) -> Encoded:
        arrays: dict[str, Any] = {
            name: None if array is None else array[start:stop] for name, array in every.items()
        }
        return Encoded(lists=packed(rows[start:stop]) if features else None, **arrays)

    expected: dict[str, list[int]] = {split: [] for split in SPLITS}
    pieces = []
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    for start, stop in pairwise([0, *cuts, count]):
        for split in SPLITS:
            if data.draw(st.booleans()):
                first = data.draw(st.integers(0, stop - start))
                last = data.draw(st.integers(0, stop - start + 2))
                chosen = slice(first, last)
                numbers = list(range(start, stop))[chosen]
            else:
                some = data.draw(some_of(stop - start))
                chosen, numbers = np.array(some, np.intp), [start + i for i in some]
            pieces.append((split, block(start, stop), chosen))
            expected[split] += numbers
    folder = Path(tempfile.mkdtemp())
    try:
        dataset = write(folder / "out", pieces, schema, weights=weights, truth=truth)
        verify(dataset)
        for name in SPLITS:
            split, numbers = dataset.split(name), expected[name]
            assert len(split) == len(numbers)
            for array, whole in every.items():
                stored = getattr(split, array)
                if whole is None:
                    assert stored is None
                else:
                    assert stored.dtype == whole.dtype
                    np.testing.assert_array_equal(stored, whole[numbers])
            if features:
                assert split.lists is not None
                assert (split.lists.ids.dtype, split.lists.offsets.dtype) == (np.int32, np.int64)
                assert unpacked(split.lists, features) == [rows[i] for i in numbers]
            else:
                assert split.lists is None
            check_labels(dataset.manifest["splits"][name], schema, every["labels"][numbers])
    finally:
        shutil.rmtree(folder)


def check_labels(record: dict, schema: Schema, labels: np.ndarray) -> None:
    """The manifest counts what is there."""
    assert record["rows"] == len(labels)
    columns = dict(zip(schema.labels, labels.T.astype(np.float64), strict=True))
    if schema.task == "classification":
        assert record["positives"] == {name: y.sum() for name, y in columns.items()}
        assert "mean" not in record
        return
    assert "positives" not in record
    for key, function in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        for name, y in columns.items():
            if len(y):
                assert record[key][name] == pytest.approx(function(y))
            else:
                assert record[key][name] is None


@pytest.mark.parametrize("absent", ["labels", "lists", "weights", "truth"])
def test_a_block_that_lacks_something_is_refused(tmp_path, absent):
    ones = np.ones(2, np.float32)
    block = replace(replace(log(2), weights=ones, truth=ones), **{absent: None})
    with pytest.raises(DatasetError, match=f"a block of 2 rows has no {absent}"):
        write(tmp_path / "out", [("train", block, slice(0, 2))], weights=True, truth=True)


def test_a_dataset_of_no_rows_at_all(tmp_path):
    dataset = write(tmp_path / "out", [])
    verify(dataset)
    split = Dataset.open(dataset.path).split("test")
    assert split.lists is not None
    assert (len(split), split.ids.shape, split.lists.ids.shape) == (0, (0, 2), (0,))
    assert split.lists.offsets.tolist() == [0]


def test_only_lists_make_a_dataset_too(tmp_path):
    schema = Schema.one_hot(0, [30, 30], kind="bag")
    block = log(20, schema)
    dataset = write(tmp_path / "out", [("train", block, slice(0, 20))], schema)
    split = dataset.split("train")
    assert split.ids.shape == (20, 0)
    assert split.dense.shape == (20, 0)
    assert split.lists is not None
    assert block.lists is not None
    assert unpacked(split.lists, 2) == unpacked(block.lists, 2)
