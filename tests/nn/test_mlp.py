"""The fused MLP against plain layers."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlrm.errors import ConfigError
from dlrm.nn import precision
from dlrm.nn.mlp import MLP


def plain(mlp: MLP, x: torch.Tensor) -> torch.Tensor:
    layers = mlp.linears()
    for i, layer in enumerate(layers):
        x = nn.functional.linear(x, layer.weight.double(), layer.bias.double())
        if mlp.relu_last or i < len(layers) - 1:
            x = torch.relu(x)
    return x


SIZES = st.lists(st.sampled_from([1, 2, 3, 7, 16, 33, 130, 200]), min_size=2, max_size=5)


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, batch=st.integers(1, 70), relu_last=st.booleans(), seed=st.integers(0, 2**31))
def test_float32_equals_plain_layers_in_float64(sizes, batch, relu_last, seed):
    torch.manual_seed(seed)
    mlp = MLP(sizes, relu_last=relu_last)
    x = torch.randn(batch, sizes[0], requires_grad=True)
    factor = torch.randn(batch, sizes[-1])
    out = mlp(x)
    assert out.shape == (batch, sizes[-1])
    (out * factor).sum().backward()
    got = [x.grad, *(p.grad for p in mlp.parameters())]
    mlp.zero_grad()
    x64 = x.detach().double().requires_grad_()
    expected = plain(mlp, x64)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)
    (expected * factor.double()).sum().backward()
    for ours, theirs in zip(got, [x64.grad, *(p.grad for p in mlp.parameters())], strict=True):
        assert ours is not None
        assert theirs is not None
        scale = float(theirs.abs().max()) + 1e-6
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-3, atol=1e-4 * scale)


@settings(deadline=None, max_examples=30)
@given(sizes=SIZES, batch=st.integers(1, 70), relu_last=st.booleans(), seed=st.integers(0, 2**31))
def test_bfloat16_is_within_its_rounding(sizes, batch, relu_last, seed):
    torch.manual_seed(seed)
    exact = MLP(sizes, relu_last=relu_last)
    mixed = MLP(sizes, relu_last=relu_last, precision="bf16")
    mixed.load_state_dict(exact.state_dict())
    x = torch.randn(batch, sizes[0])
    with torch.no_grad():
        out, expected = mixed(x), exact(x)
        bound = x.abs()
        for layer in exact.linears():
            bound = nn.functional.linear(bound, layer.weight.abs(), layer.bias.abs())
    assert out.dtype == (torch.bfloat16 if relu_last else torch.float32)
    # Each layer rounds inputs, weights and outputs to 8 bits, which at worst all add up.
    roundings = 3 * (len(sizes) - 1)
    assert ((out.float() - expected).abs() <= 1.1 * roundings * 2**-8 * bound + 1e-5).all()


@pytest.mark.parametrize("relu_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_gradients_point_the_same_way(relu_last, dtype):
    torch.manual_seed(3)
    exact = MLP([13, 64, 32, 16], relu_last=relu_last)
    mixed = MLP([13, 64, 32, 16], relu_last=relu_last, precision="bf16")
    mixed.load_state_dict(exact.state_dict())
    x = torch.randn(500, 13).to(dtype)
    inputs = [x.float().clone().requires_grad_(), x.clone().requires_grad_()]
    factor = torch.randn(500, 16)
    for mlp, x_ in zip((exact, mixed), inputs, strict=True):
        (mlp(x_).float() * factor).sum().backward()
    assert inputs[1].grad is not None
    assert inputs[1].grad.dtype == dtype
    pairs = [(inputs[0].grad, inputs[1].grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(exact.parameters(), mixed.parameters(), strict=True)]
    for theirs, ours in pairs:
        assert ours is not None
        assert theirs is not None
        cosine = nn.functional.cosine_similarity(ours.float().flatten(), theirs.flatten(), dim=0)
        assert float(cosine) > 0.995


def test_parameters_and_their_gradients_stay_float32():
    mlp = MLP([5, 4, 1], relu_last=False, precision="bf16")
    mlp(torch.randn(3, 5)).sum().backward()
    for p in mlp.parameters():
        assert p.dtype == torch.float32
        assert p.grad is not None
        assert p.grad.dtype == torch.float32


def test_layers_have_the_sizes_asked_for():
    sizes = [4, 3, 2]
    shapes = [tuple(layer.weight.shape) for layer in MLP(sizes, relu_last=True).linears()]
    assert shapes == [(k, n) for n, k in pairwise(sizes)]


def test_precisions_are_resolved_and_unknown_ones_listed(monkeypatch):
    assert precision.resolve("fp32") == "fp32"
    assert precision.resolve("auto") in ("fp32", "bf16")
    with pytest.raises(ConfigError, match="auto, fp32, bf16"):
        precision.resolve("fp16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.resolve("auto") == "fp32"
    with pytest.raises(ConfigError, match="oneDNN"):
        precision.resolve("bf16")
