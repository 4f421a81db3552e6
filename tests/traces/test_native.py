"""The C++ loops against plain Python, and plain Python against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.traces import native, plain

streams = st.lists(st.integers(0, 12), max_size=80).map(lambda ids: np.array(ids, np.int64))
compiled = pytest.mark.skipif(native._library() is None, reason="there is no compiler")


def by_definition(ids: np.ndarray) -> list[int]:
    distances = []
    for t, id_ in enumerate(ids.tolist()):
        before = [s for s in range(t) if ids[s] == id_]
        distances.append(len(set(ids[before[-1] + 1 : t].tolist())) if before else -1)
    return distances


@settings(max_examples=300, deadline=None)
@given(streams)
def test_stack_distances_are_the_distinct_ids_since_the_last_access(ids):
    codes, distinct = native.renumber(ids)

    assert native.stack_distances(codes, distinct).tolist() == by_definition(ids)
    assert plain.stack_distances(codes, distinct).tolist() == by_definition(ids)


@settings(max_examples=200, deadline=None)
@given(streams, st.integers(1, 10**12))
def test_renumbering_keeps_the_order_of_first_accesses(ids, factor):
    codes, distinct = native.renumber(ids * factor)
    expected, count = plain.renumber(ids * factor)

    assert distinct == count == len(set(ids.tolist()))
    assert codes.tolist() == expected.tolist()


@settings(max_examples=200, deadline=None)
@given(streams, st.integers(0, 80))
def test_ids_from_distances_are_the_stream_again_in_any_pieces(ids, cut):
    codes, distinct = native.renumber(ids)
    distances = native.stack_distances(codes, distinct)
    nothing = np.empty(0, np.int64)

    for room in (native, plain):
        first, stack = room.from_distances(distances[:cut], nothing)
        second, stack = room.from_distances(distances[cut:], stack)
        assert np.concatenate([first, second]).tolist() == codes.tolist()
        assert sorted(stack.tolist()) == list(range(distinct))


@compiled
@settings(max_examples=100, deadline=None)
@given(streams, st.sampled_from([3, 5, 100]), st.integers(1, 5))
def test_samplers_agree_whatever_the_pieces(ids, most, pieces):
    one, other = native.Sampler(most), plain.Sampler(most)
    for piece in np.array_split(ids, pieces):
        one.feed(piece)
        other.feed(piece)

    assert one.read()[1] == other.read()[1]
    np.testing.assert_allclose(one.read()[0], other.read()[0])


def test_a_sample_of_all_ids_is_exact():
    ids = np.random.default_rng(0).zipf(1.3, 5000) % 400
    sampler = native.Sampler(1000)
    sampler.feed(ids)
    weights, share = sampler.read()
    distances = native.stack_distances(*native.renumber(ids))

    assert share == 1.0
    bins = np.array([plain.bin_of(d) for d in distances[distances >= 0]])
    np.testing.assert_allclose(weights[:-1], np.bincount(bins, minlength=plain.BINS))
    assert weights[-1] == (distances < 0).sum()


def test_a_small_sample_estimates_the_miss_ratios():
    from dlrm.traces.measures import cache_sizes, miss_ratios, sampled_miss_ratios

    ids = np.random.default_rng(1).zipf(1.1, 300_000) % 50_000
    sampler = native.Sampler(4096)
    sampler.feed(ids)
    sizes, ratios, share = sampled_miss_ratios(sampler)
    distances = native.stack_distances(*native.renumber(ids))
    exact = cache_sizes(len(np.unique(ids)))
    estimate = np.interp(exact, sizes, ratios)

    assert share < 0.2
    assert np.abs(estimate - miss_ratios(distances, exact)).mean() < 0.02


def test_bins_begin_where_they_say():
    for place, start in enumerate(plain.bin_starts()[:400]):
        assert plain.bin_of(np.ceil(start + 1e-9)) in (place, place + 1) or start < plain.LINEAR
        assert plain.bin_of(start + 1e-6) == place or start >= plain.LINEAR
