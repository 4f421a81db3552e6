"""Ragged rows against lists of lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.bags import Bags, consecutive, join, single, take
from dlrm.errors import DatasetError

from .ragged import packed, samples, some_of, unpacked


@settings(deadline=None, max_examples=200)
@given(samples(), st.data())
def test_samples_are_taken_in_any_order_and_again(drawn, data):
    tables, rows = drawn
    chosen = data.draw(some_of(len(rows)))
    taken = take(packed(rows), tables, np.array(chosen, np.intp))
    assert unpacked(taken, tables) == [rows[i] for i in chosen]
    assert (taken.ids.dtype, taken.offsets.dtype) == (np.int32, np.int64)


@settings(deadline=None, max_examples=200)
@given(samples(), st.data())
def test_pieces_of_consecutive_samples_join_again(drawn, data):
    tables, rows = drawn
    bags = packed(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, len(rows)], strict=True))
    pieces = [consecutive(bags, tables, start, stop) for start, stop in bounds]
    for piece, (start, stop) in zip(pieces, bounds, strict=True):
        assert unpacked(piece, tables) == rows[start:stop]
        assert np.shares_memory(piece.ids, bags.ids) or not len(piece.ids)
    joined = join(pieces)
    assert unpacked(joined, tables) == rows
    assert (joined.ids.dtype, joined.offsets.dtype) == (np.int32, np.int64)


@settings(deadline=None)
@given(samples())
def test_a_table_of_one_id_each_is_a_column(drawn):
    tables, rows = drawn
    for table in range(tables):
        bags = [row[table] for row in rows]
        found = single(packed(rows), tables, table)
        if all(len(bag) == 1 for bag in bags):
            assert found is not None
            assert found.tolist() == [bag[0] for bag in bags]
        else:
            assert found is None


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [-1, 0, 1, 3], [0, 1, 2, 4]])
def test_offsets_that_fall_or_leave_the_ids_are_refused(offsets):
    bags = Bags(np.arange(3, dtype=np.int32), np.array(offsets))
    with pytest.raises(DatasetError, match=r"rows 0 to 3 .* within 0 and 3; .* --verify"):
        consecutive(bags, 1, 0, 3)
