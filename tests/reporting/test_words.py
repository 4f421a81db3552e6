import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm.reporting.words import compact, duration, interval, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.81234, "0.8123"),
        (12800, "12,800"),
        (None, "–"),
        (math.nan, "–"),
        (0.0000123, "1.23e-05"),
        (0.0, "0.0000"),
        (1e12, "1e+12"),
        ("text", "text"),
        (10**400, "inf"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (12000, "12,000"),
        (1_500_000, "1.5M"),
        (2e9, "2G"),
        (4e30, "4e+30"),
        (0.25, "0.25"),
    ],
)
def test_counts_beside_an_axis(value: float, text: str) -> None:
    assert compact(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.861, "86%"),
        (0.0123, "1.2%"),
        (0.0004, "0.04%"),
        (1e-9, "<0.01%"),
        (0, "0%"),
        (-0.25, "-25%"),
    ],
)
def test_shares(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (8040, "2 h 14 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats())
def test_every_float_has_a_short_text(value: float) -> None:
    for text in (number(value), compact(value) if math.isfinite(value) else "", percent(value)):
        assert len(text) < 330
    assert duration(value)


def test_an_interval_is_said_where_it_is_known() -> None:
    assert interval({"auc_low": 0.80123, "auc_high": 0.81}, "auc") == "0.8012 to 0.8100"
    assert interval({"auc_low": None, "auc_high": None}, "auc") == ""
    assert interval({}, "auc") == ""
