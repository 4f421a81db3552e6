"""Bags that are written block by block come back as they were."""

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.arrays import SplitWriter
from dlrm.data.bags import Bags
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset, verify
from dlrm.errors import ConfigError, DatasetError
from dlrm.schema import CategoricalFeature, Schema

from .ragged import Samples, log, packed, samples, some_of, unpacked, write


@settings(deadline=None, max_examples=25)
@given(samples(), st.data())
def test_rows_of_blocks_come_back_in_their_splits(drawn, data):
    tables, rows = drawn
    schema = Schema(
        dense=(),
        categorical=tuple(
            CategoricalFeature(name=f"C{t}", rows=100, multi_hot=True) for t in range(tables)
        ),
    )
    expected: dict[str, Samples] = {split: [] for split in SPLITS}
    pieces = []
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    for start, stop in pairwise([0, *cuts, len(rows)]):
        bags, count = packed(rows[start:stop]), stop - start
        arrays = {
            "dense": np.zeros((count, 0), np.float32),
            "ids": bags.ids,
            "offsets": bags.offsets,
            "labels": np.arange(start, stop).astype(np.uint8),
        }
        for split in SPLITS:
            if data.draw(st.booleans()):
                first = data.draw(st.integers(0, count))
                last = data.draw(st.integers(0, count + 2))
                pieces.append((split, arrays, slice(first, last)))
                expected[split] += rows[start:stop][first:last]
            else:
                some = data.draw(some_of(count))
                pieces.append((split, arrays, np.array(some, np.intp)))
                expected[split] += [rows[start:stop][i] for i in some]
    folder = Path(tempfile.mkdtemp())
    try:
        dataset = write(folder / "out", pieces, schema)
        verify(dataset)
        for name in SPLITS:
            split = dataset.split(name)
            assert split.offsets is not None
            assert len(split) == len(expected[name])
            assert (split.ids.dtype, split.offsets.dtype) == (np.int32, np.int64)
            assert unpacked(Bags(split.ids, split.offsets), tables) == expected[name]
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "offsets",
    [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 5], [1, 1, 2, 3, 4, 5, 6], [0, 3, 2, 3, 4, 5, 6], []],
)
def test_offsets_that_do_not_fit_their_block_are_refused(tmp_path, offsets):
    arrays = {**log(2), "ids": np.zeros(6, np.int32), "offsets": np.array(offsets, np.int64)}
    with pytest.raises(DatasetError, match=r"2 rows of 3 bags with 6 ids .* expected 7 that rise"):
        write(tmp_path / "out", [("train", arrays, slice(0, 2))])


def test_bags_need_a_feature(tmp_path):
    with pytest.raises(ConfigError, match="needs a categorical feature"):
        SplitWriter(tmp_path, SPLITS, 3, 0, truth=False, bags=True)


def test_a_dataset_of_no_rows_at_all(tmp_path):
    dataset = write(tmp_path / "out", [])
    verify(dataset)
    split = Dataset.open(dataset.path).split("test")
    assert split.offsets is not None
    assert (len(split), split.ids.shape, split.offsets.tolist()) == (0, (0,), [0])
