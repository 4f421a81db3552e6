"""Batches and jagged lists against plain Python lists."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema, ids_of, schemas
from dlrm.batch import Batch, Jagged, interleave
from dlrm.schema import Schema

FIELDS = ("dense", "ids", "labels", "weights")


def jagged(lists: list[list[int]]) -> Jagged:
    values = torch.tensor([i for ids in lists for i in ids], dtype=torch.int64)
    return Jagged(values, torch.tensor(np.cumsum([0, *map(len, lists)])))


def unpacked(lists: Jagged) -> list[list[int]]:
    assert lists.offsets.dtype == torch.int64
    assert lists.offsets[0] == 0
    assert lists.offsets[-1] == len(lists.values)
    return [lists.values[a:b].tolist() for a, b in pairwise(lists.offsets.tolist())]


LISTS = st.lists(st.integers(0, 99), max_size=4)


@settings(deadline=None)
@given(count=st.integers(1, 4), samples=st.integers(0, 5), data=st.data())
def test_columns_are_the_lists_of_some_features(count, samples, data):
    lists = [data.draw(LISTS) for _ in range(samples * count)]
    features = data.draw(st.lists(st.integers(0, count - 1), max_size=4))
    chosen = jagged(lists).columns(features, count)
    assert unpacked(chosen) == [lists[b * count + f] for b in range(samples) for f in features]


@settings(deadline=None)
@given(count=st.integers(1, 4), samples=st.integers(0, 5), data=st.data())
def test_interleaved_features_are_sample_by_sample(count, samples, data):
    features = [[data.draw(LISTS) for _ in range(samples)] for _ in range(count)]
    together = interleave([jagged(lists) for lists in features])
    assert unpacked(together) == [lists[b] for b in range(samples) for lists in features]
    for f, lists in enumerate(features):
        assert unpacked(together.columns([f], count)) == lists


@settings(deadline=None)
@given(lists=st.lists(LISTS, max_size=6), data=st.data())
def test_a_slice_of_lists_is_a_view(lists, data):
    start = data.draw(st.integers(0, len(lists)))
    stop = data.draw(st.integers(start, len(lists)))
    whole = jagged(lists)
    part = whole.slice(start, stop)
    assert unpacked(part) == lists[start:stop]
    assert part.values._base is whole.values or not len(part.values)
    assert part.lengths.tolist() == [len(ids) for ids in lists[start:stop]]


def test_lists_may_hold_vectors():
    a = Jagged(torch.arange(6.0).view(3, 2), torch.tensor([0, 2, 3]))
    b = Jagged(-torch.arange(2.0).view(1, 2), torch.tensor([0, 0, 1]))
    together = interleave([a, b])
    assert together.values.tolist() == [[0, 1], [2, 3], [4, 5], [-0.0, -1]]
    assert together.offsets.tolist() == [0, 2, 2, 3, 4]


@settings(deadline=None)
@given(
    schema=schemas(st.lists(st.integers(1, 9), max_size=3), num_dense=2),
    samples=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_slices_put_together_are_the_batch(schema, samples, seed, data):
    batch = draw(schema, samples, seed=seed)
    if data.draw(st.booleans()):
        batch = replace(batch, weights=torch.rand(samples))
    cut = data.draw(st.integers(0, samples))
    parts = [batch.slice(0, cut), batch.slice(cut, samples + 3)]
    assert sum(map(len, parts)) == len(batch) == samples
    for name in FIELDS:
        if getattr(batch, name) is None:
            assert all(getattr(part, name) is None for part in parts)
            continue
        whole = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(whole, getattr(batch, name))
    assert batch.num_lists == len(schema.list_features)
    for part, first in zip(parts, (0, cut), strict=True):
        assert not len(part) or part.num_lists == batch.num_lists
        for b in range(len(part)):
            for name in schema.feature_names:
                assert ids_of(schema, part, b, name) == ids_of(schema, batch, first + b, name)
    assert len(batch.slice(samples + 1, samples + 2)) == 0


def test_a_slice_is_a_view():
    batch = draw(history_schema(), 5)
    part = batch.slice(1, 4)
    for name in ("dense", "ids", "labels"):
        assert getattr(part, name).data_ptr() == getattr(batch, name)[1:].data_ptr()
    assert part.lists is not None
    assert batch.lists is not None
    assert part.lists.values._base is batch.lists.values


def whole_batch() -> Batch:
    batch = draw(history_schema(), 3)
    return replace(batch, weights=torch.rand(3), parts=(3, 4))


def test_to_moves_every_tensor():
    batch = whole_batch()
    assert batch.lists is not None
    moved = batch.to("meta")
    assert moved.lists is not None
    assert moved.parts == (3, 4)
    for name in FIELDS:
        assert getattr(moved, name).is_meta, name
        assert getattr(moved, name).shape == getattr(batch, name).shape
    for ours, theirs in zip(moved.lists, batch.lists, strict=True):
        assert ours.is_meta
        assert ours.shape == theirs.shape
    bare = replace(batch, lists=None, weights=None).to("meta")
    assert bare.lists is None
    assert bare.weights is None


def test_to_where_it_is_there_already_is_the_batch_itself():
    batch = whole_batch()
    assert batch.to("cpu") is batch
    assert batch.to(torch.device("cpu")) is batch


def test_pin_keeps_every_tensor(monkeypatch: pytest.MonkeyPatch):
    # Page-locked memory needs a GPU: what is asked for is seen here, not what comes of it.
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch = whole_batch()
    other = batch.pin()
    assert batch.lists is not None
    assert other.lists is not None
    tensors = [batch.dense, batch.ids, batch.labels, *batch.lists, batch.weights]
    assert [id(tensor) for tensor in pinned] == [id(tensor) for tensor in tensors]
    assert other.parts == batch.parts
    copies = [other.dense, other.ids, other.labels, *other.lists, other.weights]
    for ours, theirs in zip(copies, tensors, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)
        assert ours is not theirs
    assert replace(batch, lists=None, weights=None).pin().lists is None


def test_arrays_of_the_right_type_are_not_copied():
    dense = np.ones((2, 3), dtype=np.float32)
    ids = np.zeros((2, 1), dtype=np.int32)
    labels, weights = np.ones((2, 2), dtype=np.float32), np.ones(2, dtype=np.float32)
    lists = np.array([4, 5, 6], dtype=np.int32), np.array([0, 1, 3], dtype=np.int64)
    batch = Batch.of(dense, ids, labels, lists, weights)
    assert batch.lists is not None
    assert batch.weights is not None
    for tensor, array in (
        (batch.dense, dense), (batch.ids, ids), (batch.labels, labels), (batch.weights, weights),
        (batch.lists.values, lists[0]), (batch.lists.offsets, lists[1]),
    ):  # fmt: skip
        assert tensor.data_ptr() == array.ctypes.data
    assert len(batch) == 2
    assert batch.num_lists == 1
    clicks = Batch.of(dense, ids, np.array([[0], [1]], dtype=np.uint8))
    assert clicks.labels.tolist() == [[0.0], [1.0]]
    assert clicks.lists is None
    assert clicks.num_lists == 0


def test_a_batch_of_a_schema_without_features_has_none():
    batch = draw(Schema.one_hot(2, []), 3)
    assert batch.ids.shape == (3, 0)
    assert batch.lists is None
