"""The linear layer with its own backward pass against torch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.nn.linear import Linear

SIZES = st.sampled_from([1, 2, 5, 33, 130, 200])


def both(layer: Linear, x: torch.Tensor, factor: torch.Tensor) -> tuple[list, list]:
    """Output and gradients of the layer, and of its equation in float64."""
    inputs = x.clone().requires_grad_()
    out = layer(inputs)
    assert out.dtype == torch.float32
    (out * factor).sum().backward()
    ours = [out, inputs.grad, *(p.grad for p in layer.parameters())]
    exact = [x, *layer.parameters()]
    exact = [value.detach().double().requires_grad_() for value in exact]
    expected = F.linear(*exact)
    (expected * factor.double()).sum().backward()
    return ours, [expected, *(value.grad for value in exact)]


@settings(deadline=None, max_examples=40)
@given(n=SIZES, k=SIZES, samples=st.integers(1, 40), bias=st.booleans(), seed=st.integers(0, 999))
def test_float32_is_the_equation(n, k, samples, bias, seed):
    torch.manual_seed(seed)
    layer = Linear(n, k, bias=bias)
    for ours, theirs in zip(
        *both(layer, torch.randn(samples, n), torch.randn(samples, k)), strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_is_within_its_rounding(bias):
    torch.manual_seed(1)
    layer = Linear(150, 120, bias=bias, dtype="bf16")
    pairs = list(zip(*both(layer, torch.randn(64, 150), torch.randn(64, 120)), strict=True))
    for ours, theirs in pairs:
        assert ours.dtype == torch.float32
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 0.01
    # It did round: float32 would be a thousand times closer.
    ours, theirs = pairs[0]
    assert (ours.double() - theirs).norm() / theirs.norm() > 1e-4


def test_a_constant_input_gets_no_gradient():
    layer = Linear(3, 2)
    layer(torch.ones(4, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[4.0] * 3] * 2


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_backward_pass_notices_a_weight_that_changed_before_it(dtype):
    layer = Linear(3, 2, dtype=dtype)
    out = layer(torch.randn(4, 3, requires_grad=True)).sum()
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()
