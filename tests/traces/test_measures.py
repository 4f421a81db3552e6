"""Measures against their definitions, by other means."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from dlrm.traces.measures import Measures, correlation, reuse_shares
from dlrm.traces.trace import Trace

ids_lists = st.lists(st.integers(0, 20), min_size=1, max_size=120)


def lru_misses(ids, rows):
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for id_ in ids:
        if id_ in cache:
            cache.move_to_end(id_)
        else:
            misses += 1
            cache[id_] = None
            if len(cache) > rows:
                cache.popitem(last=False)
    return misses / len(ids)


@settings(max_examples=150, deadline=None)
@given(ids_lists)
def test_miss_ratios_are_those_of_simulated_caches(ids):
    measures = Measures(Trace.of("x", np.array(ids)))

    expected = [lru_misses(ids, rows) for rows in measures.sizes]
    np.testing.assert_allclose(measures.miss_ratios, expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(ids_lists)
def test_popularity_and_reuse_are_shares_of_all(ids):
    measures = Measures(Trace.of("x", np.array(ids)))

    counts = sorted((ids.count(i) for i in set(ids)), reverse=True)
    np.testing.assert_allclose(measures.popularity, np.cumsum(counts) / len(ids))
    assert measures.reuse.sum() == pytest.approx(1.0)
    assert measures.reuse[0] == pytest.approx(len(set(ids)) / len(ids))


def test_reuse_is_by_doubling_distances():
    shares = reuse_shares(np.array([-1, 0, 1, 2, 3, 4, 7, 8]))

    assert (shares[:6] * 8).tolist() == [1, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("lengths", [None, "varied"])
def test_unique_ids_are_counted_in_whole_batches(lengths):
    rng = np.random.default_rng(0)
    sizes = np.ones(300, int) if lengths is None else rng.integers(0, 5, 300)
    ids = rng.integers(0, 70, sizes.sum())
    trace = Trace.of("x", ids, None if lengths is None else sizes)
    ends = np.concatenate([[0], sizes.cumsum()])

    expected = np.mean([len(set(ids[ends[i] : ends[i + 128]])) for i in (0, 128)])
    assert Measures(trace).unique == {128: pytest.approx(expected)}


def test_drift_is_what_parts_have_in_common():
    still = np.tile(np.arange(10), 160)
    moving = np.repeat(np.arange(16), 100)

    np.testing.assert_allclose(Measures(Trace.of("x", still)).drift, 1.0)
    np.testing.assert_allclose(Measures(Trace.of("x", moving)).drift, [1.0] + [0.0] * 15)


def test_correlation_is_mutual_information_beyond_chance():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 20_000)
    noisy = np.where(rng.random(20_000) < 0.5, x, rng.integers(0, 8, 20_000))
    other = rng.integers(0, 5000, 20_000)

    assert correlation(Trace.of("a", x), Trace.of("b", x * 3)) == pytest.approx(1, abs=0.01)
    assert correlation(Trace.of("a", x), Trace.of("b", other)) == pytest.approx(0, abs=0.01)
    expected = mutual_info_score(x, noisy) / np.log(8)
    assert correlation(Trace.of("a", x), Trace.of("b", noisy)) == pytest.approx(expected, abs=0.01)


def test_measures_are_json_and_need_no_exact_distances_with_a_sampler():
    import json

    from dlrm.traces.native import Sampler

    trace = Trace.of("x", np.random.default_rng(0).integers(0, 100, 5000))
    sampler = Sampler(1000)
    sampler.feed(trace.ids)
    exact, sampled = Measures(trace).to_dict(), Measures(trace).to_dict(sampler)

    json.dumps([exact, sampled], allow_nan=False)
    estimate = np.interp(exact["cache_rows"], sampled["cache_rows"], sampled["miss_ratios"])
    np.testing.assert_allclose(estimate[1:], exact["miss_ratios"][1:], atol=0.03)
