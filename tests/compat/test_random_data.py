import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from dlrm.batch import Batch, Jagged
from dlrm.compat.batches import Data
from dlrm.compat.flags import Flags
from dlrm.compat.random_data import gaussian, random_data
from dlrm.errors import IdError


def uniform_data(flags: Flags, rng: RandomState | None = None) -> Data:
    rng = rng or RandomState(flags.numpy_rand_seed)
    return random_data(flags, rng)


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.dense, other.dense)
        and torch.equal(one.ids, other.ids)
        and torch.equal(one.labels, other.labels)
        and all(map(torch.equal, lists(one), lists(other)))
    )


def lists(batch: Batch) -> Jagged:
    assert batch.lists is not None
    return batch.lists


shapes = st.builds(
    Flags,
    arch_embedding_size=st.lists(st.integers(1, 30), min_size=1, max_size=4).map(tuple),
    data_size=st.integers(1, 9),
    num_batches=st.integers(0, 3),
    mini_batch_size=st.integers(1, 4),
    num_indices_per_lookup=st.integers(1, 6),
    num_indices_per_lookup_fixed=st.booleans(),
    round_targets=st.booleans(),
    numpy_rand_seed=st.integers(0, 2**32 - 1),
    numerics=st.sampled_from(["head", "readme2019"]),
)


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_batches(flags: Flags):
    data = uniform_data(flags)
    batches = list(data.train.read())
    sizes = [len(batch) for batch in batches]
    assert len(data.train) == len(sizes)
    if flags.num_batches:
        assert sizes == [flags.mini_batch_size] * flags.num_batches
    else:
        assert sum(sizes) == flags.data_size
        assert set(sizes[:-1]) <= {flags.mini_batch_size}
    for batch in batches:
        assert batch.num_lists == len(flags.arch_embedding_size)
        assert batch.ids.shape == (len(batch), 0)
        bags = lists(batch).values.split(lists(batch).lengths.tolist())
        for place, bag in enumerate(bags):
            rows = flags.arch_embedding_size[place % batch.num_lists]
            assert 1 <= len(bag) <= flags.num_indices_per_lookup
            assert bag.tolist() == sorted(set(bag.tolist()))
            assert 0 <= int(bag[0]) <= int(bag[-1]) < rows
        if flags.round_targets:
            assert set(batch.labels[:, 0].tolist()) <= {0.0, 1.0}
    # Every epoch and every test pass reads the same batches, whatever was drawn in between.
    for again in (data.train, data.test):
        assert all(map(same, again.read(), batches))


def test_fixed_sizes_against_a_rewrite():
    """The draws of HEAD with --num-indices-per-lookup-fixed=True, written out."""
    flags = Flags(
        data_size=5, mini_batch_size=2, num_indices_per_lookup=3, num_indices_per_lookup_fixed=True
    )
    rng = RandomState(123)
    for batch, n in zip(uniform_data(flags).train.read(), (2, 2, 1), strict=True):
        dense = rng.rand(n, 4).astype(np.float32)
        bags = {
            (t, b): np.unique(np.round(rng.rand(3) * (rows - 1)))
            for t, rows in enumerate((4, 3, 2))
            for b in range(n)
        }
        labels = rng.rand(n, 1).astype(np.float32)
        assert np.array_equal(batch.dense, dense)
        assert np.array_equal(batch.labels, labels)
        expected = np.concatenate([bags[t, b] for b in range(n) for t in range(3)])
        assert np.array_equal(lists(batch).values, expected)


def test_reading_on_in_the_middle_draws_what_comes_next():
    flags = Flags(data_size=6, mini_batch_size=2)
    whole = list(uniform_data(flags).train.read())
    rng = RandomState(flags.numpy_rand_seed)
    data = uniform_data(flags, rng)
    first = next(iter(data.train.read()))
    assert same(first, whole[0])
    rest = list(data.train.read(1))
    assert len(rest) == 2
    assert all(map(same, rest, whole[1:]))


def test_a_test_pass_in_between_changes_what_is_trained_on_next():
    """As in the original: both draw from the same random numbers."""
    flags = Flags(data_size=6, mini_batch_size=2)
    whole = list(uniform_data(flags).train.read())
    data = uniform_data(flags)
    reading = data.train.read()
    next(reading)
    assert len(list(data.test.read())) == 3
    assert not same(next(reading), whole[1])


def test_gaussian_ids_outside_of_a_table_are_named():
    rng = RandomState(1)
    draw = gaussian(rng, low=0, high=9, mean=9, sigma=0.1)
    assert draw(0, 10, 20).max() <= 9
    with pytest.raises(IdError, match=r"table 2: .*--rand-data-max=9 .*its 4 rows"):
        draw(2, 4, 5)
    with pytest.raises(IdError, match="--rand-data-min=-5"):
        gaussian(rng, low=-5, high=-2, mean=-4, sigma=0.1)(0, 4, 5)
