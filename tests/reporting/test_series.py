import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.reporting.charts.curves import LARGEST, Level, line, window
from dlrm.reporting.record import elapsed

anything = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(st.integers(0, 10**9), anything), max_size=600), st.integers(1, 50))
@settings(deadline=None)
def test_a_thinned_line_stands_for_every_finite_point(
    points: list[tuple[int, float]], most: int
) -> None:
    found = line("a", "model", [(float(x), y) for x, y in points], most=most)
    drawable = [y for _, y in points if math.isfinite(y) and abs(y) <= LARGEST]
    assert len(found) <= most
    assert found.dropped == len(points) - len(drawable)
    assert len(found) == math.ceil(len(drawable) / found.group)
    if drawable:
        assert found.low.min() == min(drawable)
        assert found.high.max() == max(drawable)
        scale = max(map(abs, drawable))
        assert np.all(found.low <= found.y + 1e-9 * scale)
        assert np.all(found.high >= found.y - 1e-9 * scale)


@given(st.lists(finite, min_size=1, max_size=300))
@settings(deadline=None)
def test_the_mean_is_kept_when_groups_are_equal(values: list[float]) -> None:
    values = values[: len(values) // 10 * 10 or 1]
    found = line("a", "model", list(enumerate(values)), most=max(1, len(values) // 10))
    assert math.isclose(found.y.mean(), np.mean(values), rel_tol=1e-9, abs_tol=1e-6)


@given(st.lists(finite, min_size=1, max_size=200), st.lists(finite, max_size=2))
@settings(deadline=None)
def test_a_window_shows_all_that_it_does_not_count_as_hidden(
    values: list[float], levels: list[float]
) -> None:
    drawn = line("a", "model", list(enumerate(values)))
    shown = window([drawn], [Level("b", "optimum", value) for value in levels])
    assert shown.low < shown.high
    assert all(shown.low <= value <= shown.high for value in levels)
    outside = ((drawn.y < shown.low) | (drawn.y > shown.high)).sum()
    assert outside <= shown.hidden
    # Only the very first points may be left outside, never the end
    assert shown.low <= drawn.y[-1] <= shown.high


def test_a_wild_start_does_not_flatten_the_rest() -> None:
    values = [80.0, 20.0] + [0.5 + 0.001 * (step % 7) for step in range(98)]
    shown = window([line("a", "model", list(enumerate(values)))])
    assert shown.hidden == 2
    assert shown.high < 1


def test_a_wide_range_is_drawn_on_powers_of_ten() -> None:
    values = [10.0 ** (step % 8) for step in range(100)]
    assert window([line("a", "model", list(enumerate(values)))]).log


def test_time_goes_on_growing_after_a_resume() -> None:
    assert elapsed([1, 2, 3, 1, 2]) == [1, 2, 3, 4, 5]
    assert elapsed([]) == []
