"""The timer, under clocks that tests wind themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.bench.timer import (
    Timing,
    figures,
    in_turn,
    interleave,
    ratio,
    verdict,
)

SECONDS = st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=9)


class Clock:
    """A clock that stands still but for what the candidates take."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def candidate(self, name: str, *takes: float):
        left = list(takes)

        def run() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_each_candidate_runs_once_a_round_in_an_order_that_turns() -> None:
    clock = Clock()
    rounds: list[int] = []
    timed = interleave(
        {name: clock.candidate(name, 9.0, t) for name, t in (("a", 1.0), ("b", 2.0), ("c", 4.0))},
        rounds=4,
        clock=clock,
        after_round=lambda: rounds.append(len(clock.ran)),
    )
    assert "".join(clock.ran) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert rounds == [6, 9, 12, 15]
    # The warm-up, of nine seconds each, is not among them.
    assert [(t.name, t.seconds) for t in timed.values()] == [
        ("a", [1.0] * 4),
        ("b", [2.0] * 4),
        ("c", [4.0] * 4),
    ]


def test_no_warmup_when_none_is_wanted() -> None:
    clock = Clock()
    timed = interleave({"a": clock.candidate("a", 3.0, 1.0)}, rounds=2, warmup=0, clock=clock)
    assert timed["a"].seconds == [3.0, 1.0]


@given(SECONDS)
@settings(deadline=None, max_examples=50)
def test_an_interval_lies_among_the_rounds_and_holds_the_median(seconds: list[float]) -> None:
    timing = Timing("a", seconds)
    low, high = timing.interval
    assert min(seconds) <= low <= high <= max(seconds)
    assert timing.least == min(seconds)
    assert low <= timing.median <= high


def test_the_interval_of_equal_rounds_is_a_point_and_of_more_rounds_narrower() -> None:
    assert Timing("a", [2.0] * 5).interval == (2.0, 2.0)
    rng = np.random.default_rng(0)
    few, many = (Timing("a", list(rng.normal(1.0, 0.1, n))).interval for n in (10, 1000))
    assert many[1] - many[0] < (few[1] - few[0]) / 3


@given(SECONDS, st.integers(1, 50))
@settings(deadline=None, max_examples=50)
def test_per_divides_a_round_into_its_steps(seconds: list[float], steps: int) -> None:
    timing = Timing("a", seconds)
    assert timing.per(steps).median == pytest.approx(timing.median / steps)
    assert ratio(timing.per(steps), timing)[0] == pytest.approx(1 / steps)


def test_ratios_are_taken_round_by_round() -> None:
    # Both became three times slower in the second half; the ratio never moved.
    a = Timing("a", [1.0] * 5 + [3.0] * 5)
    b = Timing("b", [2.0] * 5 + [6.0] * 5)
    assert ratio(a, b) == (0.5, 0.5, 0.5)


def test_the_verdict_names_the_faster_one() -> None:
    fast, slow = Timing("fast", [1.0, 1.1, 0.9]), Timing("slow", [2.0, 2.2, 1.9])
    assert verdict(fast, slow).startswith("fast is faster: 0.5")
    assert verdict(slow, fast).startswith("slow is slower: 2.0")


def test_there_is_no_verdict_where_the_interval_holds_one() -> None:
    a, b = Timing("a", [1.0, 2.0, 1.0, 2.0]), Timing("b", [2.0, 1.0, 2.0, 1.0])
    assert verdict(a, b).startswith("no verdict: a takes")
    assert verdict(a, a).startswith("no verdict")


def test_figures_are_milliseconds() -> None:
    point = [pytest.approx(2.0), pytest.approx(2.0)]
    assert figures(Timing("ours", [0.002])) == {
        "ours_ms": pytest.approx(2.0),
        "ours_ms_min": pytest.approx(2.0),
        "ours_interval": point,
        "ours_p95_ms": pytest.approx(2.0),
        "ours_p95_interval": point,
    }


@given(SECONDS, st.floats(0.0, 100.0))
@settings(deadline=None, max_examples=50)
def test_a_percentile_is_what_that_share_of_rounds_stays_below(
    seconds: list[float], q: float
) -> None:
    value, low, high = Timing("a", seconds).percentile(q)
    assert min(seconds) <= low <= high <= max(seconds)
    assert min(seconds) <= value <= max(seconds)
    above = value * (1 + 1e-9)
    assert sum(each <= above for each in seconds) >= q / 100 * (len(seconds) - 1)


@given(SECONDS)
@settings(deadline=None, max_examples=50)
def test_the_fiftieth_percentile_is_the_median(seconds: list[float]) -> None:
    timing = Timing("a", seconds)
    assert timing.percentile(50) == (pytest.approx(timing.median), *timing.interval)
    assert timing.percentile(0)[0] == timing.least


def test_a_slow_tail_is_seen_by_the_95th_percentile_alone() -> None:
    timing = Timing("a", [1.0] * 80 + [5.0] * 20)
    assert timing.interval == (1.0, 1.0)
    assert timing.percentile(95) == (5.0, 5.0, 5.0)


def test_what_goes_before_a_candidate_is_not_timed() -> None:
    clock = Clock()
    timed = interleave(
        {"a": clock.candidate("a", 1.0), "b": clock.candidate("b", 2.0)},
        rounds=2,
        clock=clock,
        before={"b": clock.candidate("x", 50.0)},
    )
    assert "".join(clock.ran) == "ab" + "axb" + "xba"
    assert [timed[name].seconds for name in "ab"] == [[1.0, 1.0], [2.0, 2.0]]


def test_inputs_take_turns_from_the_first_after_the_last() -> None:
    seen: list[int] = []
    run = in_turn(seen.append, [1, 2, 3], 2)
    for _ in range(3):
        run()
    assert seen == [1, 2, 3, 1, 2, 3]
