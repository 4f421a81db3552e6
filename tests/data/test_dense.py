import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.number import dense_array, dense_columns

integers = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 9), max_size=9)
floats = st.lists(st.none() | st.floats(), max_size=9)


@settings(deadline=None)
@given(integers, floats)
def test_numbers_become_logarithms(counts, numbers):
    rows = min(len(counts), len(numbers))
    frame = pl.DataFrame(
        {
            "a": pl.Series(numbers[:rows], dtype=pl.Float64),
            "b": pl.Series(counts[:rows], dtype=pl.Int64),
        }
    )
    inputs = dense_array(dense_columns(frame, ["b", "a"]))
    assert (inputs.shape, inputs.dtype) == ((rows, 2), np.float32)
    for row, (a, b) in enumerate(frame.iter_rows()):
        for position, x in ((0, b), (1, a)):
            expected = math.log1p(float(x)) if x is not None and x > 0 else 0.0
            assert inputs[row, position] == np.float32(expected)


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_no_columns_and_texts(rows):
    assert dense_array(dense_columns(pl.DataFrame({"a": ["1"] * rows}), [])).shape[1] == 0
    texts = pl.DataFrame({"a": pl.Series(["1"] * rows, dtype=pl.String)})
    assert dense_array(dense_columns(texts, ["a"])).tolist() == [[np.float32(math.log(2))]] * rows
