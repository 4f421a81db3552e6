"""The largest rate that a system holds, found with few runs on systems whose limit is known."""

from math import inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlrm.bench.load.search import REPEATS, TOLERANCE, Search, search

LIMIT_MS = 60.0


def latency_ms(rate: float, capacity: float) -> float:
    """Return the p99 of a queue: ever longer towards what it can do, where it has no end."""
    return inf if rate >= capacity else 5.0 * capacity / (capacity - rate)


def true_rate(capacity: float, limit_ms: float = LIMIT_MS) -> float:
    return capacity * (1 - 5.0 / limit_ms)


systems = st.floats(1.0, 1e5)
starts = st.floats(0.05, 20.0)


@given(capacity=systems, start=starts, runs=st.integers(24, 40))
def test_without_noise_it_is_found_and_confirmed(capacity, start, runs):
    done = search(
        lambda rate, _: latency_ms(rate, capacity) <= LIMIT_MS,
        start * capacity,
        most=1e6,
        runs=runs,
    )
    low, high = done.low(), done.high()
    assert done.verdict == "held"
    assert low is not None
    assert high is not None
    assert low <= true_rate(capacity) < high
    assert high / low <= 1 + TOLERANCE
    assert done.runs(low) == 1 + REPEATS


@given(capacity=systems, start=starts, noise=st.floats(0.0, 0.3), seed=st.integers(0, 2**32 - 1),
       runs=st.integers(1, 30))  # fmt: skip
def test_with_noise_it_is_near_or_there_is_no_verdict(capacity, start, noise, seed, runs):
    rng = np.random.default_rng(seed)

    def measure(rate: float, _: int) -> bool:
        return latency_ms(rate, capacity) * rng.uniform(1 - noise, 1 + noise) <= LIMIT_MS

    done = search(measure, start * capacity, most=1e6, runs=runs)
    low, high = done.low(), done.high()
    assert len(done.trials) <= runs
    if low is not None:
        # No run said yes where the noise cannot reach.
        assert low <= true_rate(capacity, LIMIT_MS / (1 - noise)) * (1 + 1e-9)
    if high is not None:
        assert high >= true_rate(capacity, LIMIT_MS / (1 + noise)) * (1 - 1e-9)
    if done.verdict == "held":
        assert low is not None
        assert all(trial.held for trial in done.trials if trial.rate == low)
        assert done.runs(low) >= 1 + REPEATS


@given(capacity=systems)
def test_no_rate_beyond_the_most_is_offered(capacity):
    most = capacity / 2
    done = search(
        lambda rate, _: latency_ms(rate, capacity) <= LIMIT_MS, most / 3, most=most, runs=30
    )
    assert max(trial.rate for trial in done.trials) == most
    assert (done.verdict, done.low(), done.high()) == ("not exceeded", most, None)


@given(runs=st.integers(1, 20))
def test_what_holds_nothing_is_said(runs):
    done = search(lambda *_: False, 1000.0, most=1e6, runs=runs)
    assert (done.verdict, done.low(), len(done.trials)) == ("not held", None, runs)
    assert Search().verdict == "not held"


def test_what_holds_now_and_then_has_no_verdict():
    done = search(lambda rate, run: rate <= 100 and run % 2 == 0, 90.0, most=1e6, runs=7)
    assert done.verdict == "no verdict"


def test_each_run_has_arrivals_of_its_own():
    seeds = []

    def measure(rate: float, seed: int) -> bool:
        seeds.append(seed)
        return rate < 500

    search(measure, 100.0, most=1e6, runs=20)
    assert len(set(seeds)) == len(seeds)
