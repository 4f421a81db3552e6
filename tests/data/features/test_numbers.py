from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.column import SCALES, Column
from dlrm.data.features.number import Number
from dlrm.data.features.texts import NumberReading, as_numbers, as_texts

values = st.lists(
    st.none() | st.floats(-1e6, 1e6, width=32).map(lambda x: round(x, 3)), min_size=1, max_size=60
)
COLUMN = Column(name="x", kind="number")
TIME = NumberReading(time=True)


def fitted(numbers: Sequence[float | None], **settings) -> tuple[Number, pl.Series]:
    column = pl.Series("x", numbers, pl.Float64)
    return Number.fit(replace(COLUMN, **settings), column), column


def dense(number: Number, column: pl.Series) -> np.ndarray:
    return number.encode(column.to_frame()).dense[0]


@settings(deadline=None)
@given(values, st.sampled_from(["none", "standard", "log"]))
def test_scaling_is_undone(numbers, scale):
    number, column = fitted(numbers, scale=scale)
    back = number.raw(dense(number, column))
    known = np.array([x for x in numbers if x is not None])
    found = back[[x is not None for x in numbers]]
    size = np.abs(known).max(initial=1.0)
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-3 * size)


@settings(deadline=None)
@given(values.filter(lambda x: len(set(x) - {None}) > 1))
def test_standard_has_mean_0_and_deviation_1(numbers):
    for scale in ("standard", "log"):
        number, column = fitted(numbers, scale=scale)
        found = dense(number, column.drop_nulls()).astype(float)
        assert abs(found.mean()) < 1e-3
        assert abs(found.std() - 1) < 1e-3


@settings(deadline=None)
@given(values, st.lists(st.floats(-1e7, 1e7), min_size=2, max_size=20))
def test_ranks_rise_with_the_number(numbers, more):
    number, column = fitted(numbers, scale="quantile")
    found = dense(number, pl.Series("x", sorted(more)))
    assert (np.diff(found) >= 0).all()
    assert np.abs(found).max() <= 3**0.5 + 1e-6 or not number.ranks
    ours = column.drop_nulls().sort()
    assert (np.diff(dense(number, ours)) >= 0).all()


@settings(deadline=None)
@given(values, st.integers(2, 12), st.lists(st.none() | st.floats(-1e6, 1e6), max_size=20))
def test_buckets_are_those_of_a_plain_loop(numbers, buckets, more):
    number, _ = fitted(numbers, buckets=buckets)
    known = sorted(x for x in numbers if x is not None)
    edges = set()
    for k in range(1, buckets):
        if known:
            edges.add(
                known[int(np.ceil(float(np.linspace(0, 1, buckets + 1)[k]) * (len(known) - 1)))]
            )
    edges = sorted(edge for edge in edges if edge > known[0]) if known else []
    assert number.edges == tuple(edges)
    found = number.buckets(np.array(more, np.float64))
    expected = [len(edges) + 1 if x is None else sum(edge <= x for edge in edges) for x in more]
    assert found.tolist() == expected
    rows = number.inputs()[-1].num_embeddings
    assert rows is not None
    assert rows == len(number.bucket_names())
    assert all(bucket < rows for bucket in expected)


@pytest.mark.parametrize("scale", SCALES)
def test_missing_is_0_with_a_flag_and_a_bucket(scale):
    number, column = fitted([3.0, None, 5.0, 9.0], scale=scale, missing_flag=True, buckets=2)
    parts = number.encode(column.to_frame())
    assert [made.name for made in number.inputs()] == ["x", "x missing", "x bucket"]
    assert parts.dense[0][1] == 0
    assert parts.dense[1].tolist() == [0, 1, 0, 0]
    assert parts.ids[0][1] == 2  # type: ignore[index]
    assert number.bucket_names() == ["below 5", "5 and more", "(missing)"]


@pytest.mark.parametrize("scale", SCALES)
def test_hard_columns_stay_finite(scale):
    for numbers in ([], [None, None], [0.1] * 7, [1e300, -1e300, 0.0], [2**63 - 1.0, 5.0, 1e-300]):
        number, _ = fitted(numbers, scale=scale, buckets=4)
        for probe in (0.1, -3.0, 1e308, None):
            found = dense(number, pl.Series("x", [probe], pl.Float64))
            assert np.isfinite(found).all()
            back = np.isfinite(number.raw(found)).all()
            if scale == "piecewise":
                # Where no number was known, all are missing, and nothing stands for one.
                assert back == any(known is not None for known in numbers)
            else:
                assert back or abs(probe or 0) > 1e30
        assert Number.from_dict(number.to_dict()) == number


def test_equal_numbers_are_not_blown_up():
    number, _ = fitted([0.1] * 7, scale="standard")
    assert abs(dense(number, pl.Series("x", [0.1]))[0]) < 1e-6
    assert abs(dense(number, pl.Series("x", [0.2]))[0] - 0.1) < 1e-6


def test_times_are_seconds_in_every_type():
    texts = pl.Series("x", ["2024-01-31 12:00:00.5", "2024-01-31T12:00Z", "2024-01-31", "", "NA"])
    seconds = [1706702400.5, 1706702400.0, 1706659200.0, None, None]
    numbers, wrong = as_numbers(texts, TIME)
    assert numbers.to_list() == seconds
    assert not wrong.any()
    days = pl.Series("x", ["2024-01-31"]).str.to_date()
    for unit in ("ms", "us", "ns"):
        assert as_numbers(days.cast(pl.Datetime(unit)))[0].to_list() == [1706659200.0]
    assert as_numbers(days)[0].to_list() == [1706659200.0]
    hours = pl.Series("x", ["12:00:01"])
    assert as_numbers(hours.str.to_time())[0].to_list() == [43201.0]
    assert as_numbers(hours, TIME)[0].to_list() == [43201.0]
    for text in ("5", "31.01.2024", "2024-13-01"):
        assert as_numbers(pl.Series([text]), TIME)[1].to_list() == [True]
    number = Number.fit(replace(COLUMN, time=True, buckets=2), numbers, TIME)
    assert number.bucket_names()[0] == "below 2024-01-31 12:00:00"


def test_texts_that_are_no_numbers():
    texts = ["inf", "-inf", "1e400", "1,5", "1_0", "0x1", "five", "--1"]
    assert as_numbers(pl.Series(texts))[1].all()
    assert as_numbers(pl.Series([float("inf"), 1.0]))[1].to_list() == [True, False]
    good = pl.Series([" 3 ", "-4.5e2", ".5", "", "NA", "?", "99999999999999999999", None])
    numbers, wrong = as_numbers(good)
    assert not wrong.any()
    assert numbers.to_list() == [3.0, -450.0, 0.5, None, None, None, 1e20, None]


def test_a_whole_number_is_the_same_text_in_every_type():
    expected = ["3", None, "-20"]
    for column in (
        pl.Series([3, None, -20]),
        pl.Series([3.0, None, -20.0]),
        pl.Series([3.0, float("nan"), -20.0], dtype=pl.Float32),
        pl.Series(["3", "", "-20"]),
        pl.Series(["3.0", " ", "-20."]),
        pl.Series(["3", None, "-20"], dtype=pl.Categorical),
    ):
        assert as_texts(column).to_list() == expected
    kept = ["03", "1.2.0", "1.50", "a b"]
    assert as_texts(pl.Series(kept)).to_list() == kept
