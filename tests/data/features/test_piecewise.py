"""Knots, and numbers as positions between them."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.column import Column
from dlrm.data.features.number import Number
from dlrm.data.features.piecewise import at_positions, find_knots, positions

finite = st.floats(-1e300, 1e300, allow_subnormal=False)
some = st.lists(finite | st.integers(-3, 3).map(float), min_size=1, max_size=80).map(np.array)
most = st.integers(2, 20)
COLUMN = Column(name="x", kind="number", scale="piecewise")


def fitted(values: list[float | None], **changes) -> Number:
    return Number.fit(replace(COLUMN, **changes), pl.Series("x", values, pl.Float64))


def encoded(number: Number, values: list[float | None]) -> np.ndarray:
    return number.encode(pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)})).dense[0]


@settings(deadline=None)
@given(some, most)
def test_knots_rise_from_the_lowest_value_to_the_greatest(values, most):
    knots = np.array(find_knots(values, most))
    assert (np.diff(knots) > 0).all()
    assert len(knots) <= most
    assert np.isin(knots, values).all()
    assert (knots[0], knots[-1]) == (values.min(), values.max())
    if len(np.unique(values)) <= most:
        np.testing.assert_array_equal(knots, np.unique(values))


@settings(deadline=None)
@given(some, st.integers(6, 20), finite)
def test_a_frequent_value_is_a_bin_by_itself(values, most, heavy):
    values = np.concatenate([values, np.full(len(values) * 2, heavy)])
    knots = find_knots(values, most)
    assert heavy in knots
    if (above := values[values > heavy]).size:
        assert above.min() in knots


def test_zeros_do_not_take_the_knots_of_other_values():
    values = np.concatenate([np.zeros(900), np.arange(1.0, 101.0)])
    knots = find_knots(values, 12)
    assert knots[:2] == (0.0, 1.0)
    assert len(knots) >= 11


@settings(deadline=None)
@given(some, most, st.lists(finite, min_size=1, max_size=30))
def test_positions_are_the_formula_and_rise(values, most, more):
    knots = find_knots(values, most)
    x = np.sort(np.array(more))
    places = positions(x, knots)
    assert (np.diff(places) >= 0).all()
    assert places.min() >= 1
    assert places.max() <= len(knots)
    for number, place in zip(x, places, strict=True):
        t = sum(knot <= number for knot in knots)
        if t == len(knots) or t == 0:
            assert place == max(t, 1)
        else:
            share = (number / 2 - knots[t - 1] / 2) / (knots[t] / 2 - knots[t - 1] / 2)
            assert abs(place - (t + share)) < 1e-6


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(2, 40))
def test_encoding_is_undone_within_a_millionth_of_a_bin(values, bins):
    number = fitted(values, bins=bins)
    places = encoded(number, values)
    assert places.dtype == np.float32
    (model_input,) = number.inputs()
    assert ((places >= 0) & (places <= model_input.bins)).all()
    missing = np.array([value is None for value in values])
    np.testing.assert_array_equal(places == 0, missing)
    back = number.raw(places)
    assert np.isnan(back[missing]).all()
    known = np.array([value for value in values if value is not None])
    if known.size:
        np.testing.assert_allclose(back[~missing], known, atol=1e-5 * np.ptp(known), rtol=1e-9)
    again = Number.from_dict(json.loads(json.dumps(number.to_dict())))
    assert again == number


def test_a_missing_number_is_the_median_where_training_had_none():
    number = fitted([1.0, 2.0, 3.0, 4.0, 100.0])
    assert encoded(number, [3.0]) > 1
    np.testing.assert_array_equal(np.diff(encoded(number, [None, 3.0, float("inf")])), 0)


def test_without_a_number_there_is_none():
    number = fitted([None, None])
    assert number.inputs()[0].bins == 0
    np.testing.assert_array_equal(encoded(number, [None, 5.0]), [0.0, 0.0])
    assert np.isnan(number.raw(np.zeros(1, np.float32)))


def test_infinities_are_no_knots():
    assert fitted([float("inf"), 1.0, 2.0, float("-inf")]).knots == (1.0, 2.0)


def test_one_value_and_missing_ones_are_told_apart():
    number = fitted([7.0, None, 7.0])
    np.testing.assert_array_equal(encoded(number, [7.0, None, 9.0]), [1.0, 0.0, 1.0])
    assert number.inputs()[0].bins == 1


@settings(deadline=None)
@given(st.floats(-1e300, 1e300), st.integers(1, 5))
def test_numbers_at_positions(start, count):
    knots = tuple(np.unique(start + np.arange(count) * (abs(start) + 1)).tolist())
    places = np.arange(len(knots), dtype=np.float64) + 1
    np.testing.assert_allclose(at_positions(places, knots), knots)


def test_knots_that_are_hardly_apart_leave_positions_finite():
    knots = (0.0, 5e-324, 1e-310, 1.0)
    places = positions(np.array([-1.0, 1e-323, 1e-309, np.nan]), knots)
    np.testing.assert_array_equal(np.isfinite(places), [True, True, True, False])
    assert np.nanmax(places) <= 4
