"""The interaction network against the sum over all pairs at once, part by part and in bfloat16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.nn import cin
from dlrm.nn.cin import CIN


def plain(network: CIN, e: torch.Tensor) -> torch.Tensor:
    """All pairs (B, H, T, D) of each layer, contracted in float64."""
    x0 = x = e.double()
    sums = []
    for weight in [*network.weights, network.last.weight]:
        w = weight.double().view(len(weight), x0.shape[1], x.shape[1])
        x = torch.einsum("bjd,bid,hji->bhd", x0, x, w)
        sums.append(x.sum(dim=2))
    return torch.cat(sums, dim=1)


def gradients(network: CIN, out: torch.Tensor, e: torch.Tensor, factor: torch.Tensor) -> list:
    wanted = [e, *network.parameters()]
    return list(torch.autograd.grad((out * factor).sum(), wanted))


@settings(deadline=None, max_examples=30)
@given(
    tables=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    dim=st.integers(1, 4),
    samples=st.integers(1, 9),
    pairs=st.sampled_from([1, 60, 10**6]),
)
def test_parts_of_any_size_give_all_pairs(tables, sizes, dim, samples, pairs):
    torch.manual_seed(samples)
    network = CIN(tables, sizes).double()
    e = torch.randn(samples, tables, dim, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(samples, sum(sizes), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cin, "PAIRS", pairs)
        out = network(e)
        ours = gradients(network, out, e, factor)
    expected = plain(network, e)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(ours, gradients(network, expected, e, factor))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_dtypes_are_within_their_rounding(dtype, tolerance):
    torch.manual_seed(2)
    network = CIN(26, (40, 30, 20), dtype=dtype)
    e = torch.randn(50, 26, 16, requires_grad=True)
    factor = torch.randn(50, 90)
    out, expected = network(e), plain(network, e)
    assert out.dtype == torch.float32
    pairs = [(out, expected)]
    pairs += zip(
        gradients(network, out, e, factor), gradients(network, expected, e, factor), strict=True
    )
    for ours, theirs in pairs:
        assert (ours.double() - theirs.double()).norm() / theirs.norm() < tolerance


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_backward_pass_notices_a_weight_that_changed_before_it(dtype, layer):
    network = CIN(3, (4, 2), dtype=dtype)
    out = network(torch.randn(5, 3, 4, requires_grad=True)).sum()
    with torch.no_grad():
        [*network.weights, network.last.weight][layer].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()
