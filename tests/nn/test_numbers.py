"""The layer that makes several numbers of a piecewise one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.nn.numbers import Numbers, NumberVectors
from dlrm.schema import DenseFeature, Schema


def schema(bins: list[int]) -> Schema:
    dense = tuple(DenseFeature(name=f"I{n}", bins=count) for n, count in enumerate(bins))
    return Schema(dense=dense, tables=(), features=())


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=5), st.integers(0, 4), st.integers(0, 1000))
def test_the_layer_is_a_loop_over_bins(bins, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(rows, len(bins), generator=generator) * 8 - 1
    layer = Numbers(schema(bins))
    expected = []
    for row in dense.tolist():
        line = []
        for u, count in zip(row, bins, strict=True):
            line += [min(max(u - t, 0.0), 1.0) for t in range(count)] if count else [u]
        expected.append(line)
    assert layer.width == sum(max(count, 1) for count in bins)
    out = layer(dense)
    torch.testing.assert_close(out, torch.tensor(expected).view(rows, layer.width))
    assert not layer.state_dict()


def test_plain_numbers_pass_as_they_are():
    dense = torch.rand(3, 2)
    assert Numbers(schema([0, 0]))(dense) is dense


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=5), st.integers(0, 4), st.integers(1, 3),
    st.integers(0, 1000),
)  # fmt: skip
def test_vectors_are_a_linear_layer_over_the_components_of_each_number(bins, rows, dim, seed):
    torch.manual_seed(seed)
    dense = torch.rand(rows, len(bins)) * 8 - 1
    layer = NumberVectors(schema(bins), dim).double()
    dense[:, [n for n, count in enumerate(bins) if count]] += 1
    components = Numbers(schema(bins))(dense).double()
    expected = torch.zeros(rows, len(bins), dim, dtype=torch.float64)
    at = 0
    for n, count in enumerate(bins):
        width = max(count, 1)
        bias, weight = layer.steps[n, 0], layer.steps[n, 1 : 1 + width]
        expected[:, n] = torch.relu(bias + components[:, at : at + width] @ weight)
        at += width
    out = layer(dense)
    torch.testing.assert_close(out, expected)
    if bins:
        grads = [torch.autograd.grad(each.sum(), layer.steps)[0] for each in (out, expected)]
        torch.testing.assert_close(*grads)
    assert list(layer.state_dict()) == ["steps"]


def test_a_missing_number_has_a_vector_of_its_own_and_rows_do_not_depend_on_others():
    layer = NumberVectors(schema([4, 0]), 3)
    dense = torch.tensor([[0.0, 1.5], [4.0, -2.0], [2.25, 0.0]])
    vectors = layer(dense)
    torch.testing.assert_close(vectors[0, 0], torch.relu(layer.steps[0, 0]))
    assert torch.equal(torch.cat([layer(row[None]) for row in dense]), vectors)
