"""Mixed dimensions: the solver against its formula, the tables against plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import ConfigError
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection, normal
from dlrm.nn.mixed_dim import ProjectedEmbeddings, dimensions, mixed

from .bags import SEEDS, assert_gradients, assert_is


def test_dimensions_of_the_originals_example():
    assert dimensions([500, 300, 100, 7], 8) == [2, 3, 4, 8]
    assert dimensions([500, 300, 100, 7], 8, powers_of_two=True) == [2, 4, 4, 8]


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(st.integers(1, 10**8), min_size=1, max_size=8),
    dim=st.integers(1, 200),
    temperature=st.floats(0, 1),
    powers=st.booleans(),
)
def test_smaller_tables_never_get_shorter_rows(rows, dim, temperature, powers):
    found = dimensions(rows, dim, temperature=temperature, powers_of_two=powers)
    assert all(1 <= d <= dim for d in found)
    by_rows = [d for _, d in sorted(zip(rows, found, strict=True), key=lambda pair: pair[0])]
    assert by_rows == sorted(by_rows, reverse=True)
    if not powers:
        assert found[int(np.argmin(rows))] == dim
        for n, d in zip(rows, found, strict=True):
            exact = dim * (min(rows) / n) ** temperature
            assert abs(d - max(1.0, exact)) <= 0.5 + 1e-9
    else:
        assert all(d == dim or d & (d - 1) == 0 for d in found)


def test_temperature_zero_changes_nothing():
    assert dimensions([10, 10**6], 16, temperature=0.0) == [16, 16]


def test_popularity_counts_queries_a_row():
    # The large table is asked as often a row as the small one.
    assert dimensions([10, 1000], 16, queries=[1, 100]) == [16, 16]
    # And here more often: the small one is the one that gets shorter.
    assert dimensions([10, 10], 16, temperature=0.5, queries=[1, 4]) == [8, 16]


DIMS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(tables=DIMS, samples=st.integers(1, 5), seed=SEEDS)
def test_is_its_definition(tables, samples, seed):
    torch.manual_seed(seed)
    rows, dims = [n for n, _ in tables], [d for _, d in tables]
    names = [f"C{t}" for t in range(len(rows))]
    made = mixed(rows, 4, dims, names).double()
    assert made.rows == tuple(rows)
    assert made.names == tuple(names)
    groups = {d: [t for t, each in enumerate(dims) if each == d] for d in set(dims)}

    def vector(t: int, i: int) -> np.ndarray:
        place = groups[dims[t]].index(t)
        parts = made.typed_parts() if isinstance(made, ConcatEmbeddings) else [made]
        part = parts[sorted(groups).index(dims[t])]
        if isinstance(part, EmbeddingCollection):
            return part.table(place).numpy()[i]
        assert isinstance(part, ProjectedEmbeddings)
        return part.maps[place].detach().numpy() @ part.tables.table(place).numpy()[i]

    assert_is(made, vector, samples, seed)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    assert_gradients(mixed([9, 20, 30], 4, [4, 2, 2], ["a", "b", "c"]).double(), seed=1)


def test_equal_dimensions_are_looked_up_as_one():
    made = mixed([9, 20, 30, 8], 4, [4, 2, 2, 4], ["a", "b", "c", "d"])
    assert isinstance(made, ConcatEmbeddings)
    assert made.features == ((1, 2), (0, 3))
    assert made.size_bytes == 4 * (50 * 2 + 2 * 4 * 2 + 17 * 4)


def test_fresh_vectors_have_the_variance_of_a_plain_table():
    torch.manual_seed(2)
    ids = torch.arange(5000)[:, None]
    for init_std in (None, 0.3):
        plain = EmbeddingCollection([5000], 16, draw=normal(init_std) if init_std else None)(ids)
        stds = [
            ProjectedEmbeddings([5000], 16, 4, init_std=init_std)(ids).std().item()
            for _ in range(20)
        ]
        assert np.mean(stds) == pytest.approx(plain.std().item(), rel=0.08)


def test_zero_can_be_left():
    made = ProjectedEmbeddings([20], 4, 2)
    made.start_at_zero()
    out = made(torch.tensor([[3]]))
    assert not out.any()
    out.sum().backward()
    (weight,) = made.tables.parameters()
    assert weight.grad is not None
    assert weight.grad.to_dense()[3].all()


def test_a_dimension_out_of_range_names_the_table():
    with pytest.raises(ConfigError, match="b: its table has dimension 5, expected 1 to 4"):
        mixed([5, 6], 4, [4, 5], ["a", "b"])
