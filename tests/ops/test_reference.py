"""The reference kernels against loops in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.ops import reference

shapes = {
    "seed": st.integers(0, 2**31),
    "rows": st.integers(1, 20),
    "dim": st.integers(1, 9),
    "count": st.integers(0, 30),
}


def draw(seed: int, rows: int, dim: int, count: int):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, rows, (count,), generator=generator)
    grad = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return generator, weight, ids, grad


def row_gradients(rows: int, ids: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(rows, grad.shape[1], dtype=torch.float64)
    for i, g in zip(ids.tolist(), grad, strict=True):
        total[i] += g
    return total


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=12), **shapes)
def test_pooled_lookup_sums_each_bag(lengths, seed, rows, dim, count):
    generator, weight, _, _ = draw(seed, rows, dim, count)
    ids = torch.randint(0, rows, (sum(lengths),), generator=generator)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    pooled = reference.pooled_lookup(weight, ids, offsets)
    for g, length in enumerate(lengths):
        expected = torch.zeros(dim, dtype=torch.float64)
        for i in ids[offsets[g] : offsets[g] + length].tolist():
            expected += weight[i]
        torch.testing.assert_close(pooled[g], expected)


@settings(deadline=None, max_examples=60)
@given(**shapes)
def test_sgd_adds_up_duplicates(seed, rows, dim, count):
    _, weight, ids, grad = draw(seed, rows, dim, count)
    expected = weight - 0.3 * row_gradients(rows, ids, grad)
    reference.sgd_update(weight, ids, grad, 0.3)
    torch.testing.assert_close(weight, expected)


@settings(deadline=None, max_examples=60)
@given(**shapes)
def test_adagrad_squares_the_sum_over_duplicates(seed, rows, dim, count):
    generator, weight, ids, grad = draw(seed, rows, dim, count)
    state = torch.rand(rows, dim, generator=generator, dtype=torch.float64)
    total = row_gradients(rows, ids, grad)
    expected_state = state + total**2
    expected = weight - 0.3 * total / (expected_state.sqrt() + 1e-3)
    reference.adagrad_update(weight, state, ids, grad, 0.3, 1e-3)
    torch.testing.assert_close(state, expected_state)
    torch.testing.assert_close(weight, expected)


@settings(deadline=None, max_examples=60)
@given(**shapes)
def test_rowwise_adagrad_keeps_the_mean_square_of_a_row(seed, rows, dim, count):
    generator, weight, ids, grad = draw(seed, rows, dim, count)
    state = torch.rand(rows, generator=generator, dtype=torch.float64)
    total = row_gradients(rows, ids, grad)
    expected_state = state + (total**2).mean(dim=1)
    expected = weight - 0.3 * total / (expected_state.sqrt() + 1e-3)[:, None]
    reference.rowwise_adagrad_update(weight, state, ids, grad, 0.3, 1e-3)
    torch.testing.assert_close(state, expected_state)
    torch.testing.assert_close(weight, expected)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(0, 4),
    vectors=st.integers(1, 6),
    dim=st.integers(1, 5),
    self_interaction=st.booleans(),
)
def test_dot_interaction_goes_down_the_lower_triangle(seed, batch, vectors, dim, self_interaction):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(batch, vectors, dim, generator=generator, dtype=torch.float64)
    pairs = [(i, j) for i in range(vectors) for j in range(i + self_interaction)]
    expected = torch.zeros(batch, dim + len(pairs), dtype=torch.float64)
    expected[:, :dim] = v[:, 0]
    for b in range(batch):
        for p, (i, j) in enumerate(pairs):
            expected[b, dim + p] = sum(v[b, i, k] * v[b, j, k] for k in range(dim))
    out = reference.dot_interaction(v[:, 0], v[:, 1:], self_interaction)
    torch.testing.assert_close(out, expected)
