"""Ragged rows against lists of lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.encoded import Lists, consecutive, join, take
from dlrm.errors import DatasetError

from .ragged import packed, samples, some_of, unpacked


@settings(deadline=None, max_examples=200)
@given(samples(), st.data())
def test_samples_are_taken_in_any_order_and_again(drawn, data):
    features, rows = drawn
    chosen = data.draw(some_of(len(rows)))
    taken = take(packed(rows), features, np.array(chosen, np.intp))
    assert unpacked(taken, features) == [rows[i] for i in chosen]
    assert (taken.ids.dtype, taken.offsets.dtype) == (np.int32, np.int64)


@settings(deadline=None, max_examples=200)
@given(samples(), st.data())
def test_pieces_of_consecutive_samples_join_again(drawn, data):
    features, rows = drawn
    lists = packed(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, len(rows)], strict=True))
    pieces = [consecutive(lists, features, start, stop) for start, stop in bounds]
    for piece, (start, stop) in zip(pieces, bounds, strict=True):
        assert unpacked(piece, features) == rows[start:stop]
        assert np.shares_memory(piece.ids, lists.ids) or not len(piece.ids)
    joined = join(pieces)
    assert unpacked(joined, features) == rows
    assert (joined.ids.dtype, joined.offsets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [-1, 0, 1, 3], [0, 1, 2, 4]])
def test_offsets_that_fall_or_leave_the_ids_are_refused(offsets):
    lists = Lists(np.arange(3, dtype=np.int32), np.array(offsets))
    with pytest.raises(DatasetError, match=r"rows 0 to 3 .* within 0 and 3; .* --verify"):
        consecutive(lists, 1, 0, 3)
