"""The layer that makes several numbers of a piecewise one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.nn.numbers import Numbers
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
