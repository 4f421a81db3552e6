"""The fused MLP against plain layers."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlrm import ops
from dlrm.errors import ConfigError
from dlrm.nn import precision
from dlrm.nn.mlp import MLP, freeze
from dlrm.ops import products, ways
from dlrm.ops.choice import choices


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
    mixed = MLP(sizes, relu_last=relu_last, dtype="bf16")
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
    mixed = MLP([13, 64, 32, 16], relu_last=relu_last, dtype="bf16")
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
    mlp = MLP([5, 4, 1], relu_last=False, dtype="bf16")
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


def trained(mlp: MLP, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and the gradients of all parameters after one backward pass."""
    mlp.zero_grad()
    out = mlp(x)
    out.float().square().sum().backward()
    gradients = [p.grad for p in mlp.parameters() if p.grad is not None]
    return [out.detach(), *(g.clone() for g in gradients)]


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_parameters_that_change_in_any_way_are_seen_at_once(dtype):
    torch.manual_seed(5)
    mlp = MLP([13, 40, 1], relu_last=False, dtype=dtype)
    other = MLP([13, 40, 1], relu_last=False, dtype=dtype)
    x = torch.randn(33, 13)
    trained(mlp, x)
    with torch.no_grad():
        for p, q in zip(mlp.parameters(), other.parameters(), strict=True):
            p.copy_(q)
    assert same(trained(mlp, x), trained(other, x))
    for p in [*mlp.parameters(), *other.parameters()]:
        p.data.mul_(1.5)  # autograd does not count this change
    fresh = MLP([13, 40, 1], relu_last=False, dtype=dtype)
    fresh.load_state_dict(other.state_dict())
    assert same(trained(mlp, x), trained(fresh, x))
    assert not torch.equal(mlp(x), MLP([13, 40, 1], relu_last=False, dtype=dtype)(x))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_copy_is_its_own(dtype):
    torch.manual_seed(6)
    mlp = MLP([5, 33, 7], relu_last=True, dtype=dtype)
    x = torch.randn(9, 5)
    before = trained(mlp, x)
    twin = deepcopy(mlp)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert same(trained(mlp, x), before)
    assert not same(trained(twin, x), before)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_gradients_accumulate(dtype):
    torch.manual_seed(7)
    mlp = MLP([13, 64, 16], relu_last=True, dtype=dtype)
    x = torch.randn(40, 13)
    _, *once = trained(mlp, x)
    mlp(x).float().square().sum().backward()
    for p, g in zip(mlp.parameters(), once, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, 2 * g)
    assert torch.isfinite(nn.utils.clip_grad_norm_(mlp.parameters(), 1.0))


@pytest.fixture(params=["default", "tiles", "torch", "no onednn", "reference"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way an MLP may go, on whatever CPU this is; the first is that of this one."""
    monkeypatch.setattr(choices, "_chosen", {})
    ways._ways.cache_clear()
    if request.param == "tiles":
        monkeypatch.setenv("DLRM_KERNELS", "tiles")
    elif request.param in ("torch", "no onednn"):
        monkeypatch.setattr(ways, "_readable", lambda _: False)
        if request.param == "no onednn":
            # It multiplies no bfloat16 on a CPU without AVX-512.
            monkeypatch.setattr(products, "takes_bf16", lambda: False)
    elif request.param == "reference":
        monkeypatch.setattr(ops, "_compiled", lambda: False)
    yield request.param
    ways._ways.cache_clear()


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"batch_norm": True}])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_backward_pass_notices_parameters_that_changed_before_it(path, dtype, options, layer):
    torch.manual_seed(0)
    mlp = MLP([3, 4, 1], relu_last=False, dtype=dtype, **options)
    x = torch.randn(5, 3, requires_grad=True)
    if not options and path not in ("default", "tiles"):
        assert ways.chosen(x, list(mlp.layers.parameters()), "bf16") is None
    out = mlp(x).sum()
    with torch.no_grad():
        mlp.linears()[layer].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_path_computes_the_same(path, dropout):
    torch.manual_seed(0)
    mlp = MLP([13, 64, 32, 1], relu_last=False, dtype="bf16", dropout=dropout)
    x = torch.randn(50, 13)
    exact = MLP([13, 64, 32, 1], relu_last=False, dropout=dropout)
    exact.load_state_dict(mlp.state_dict())
    for each in (mlp, exact):
        each.generator = torch.Generator().manual_seed(1)
    ours = trained(mlp, x)
    for a, b in zip(ours, trained(exact, x), strict=True):
        assert float((a - b).norm()) < 0.1 * float(b.norm()) + 1e-3


@pytest.mark.parametrize("relu_last", [False, True])
def test_norm_relu_and_dropout_follow_each_other(relu_last):
    torch.manual_seed(8)
    mlp = MLP([6, 8, 4], relu_last=relu_last, dropout=0.5, batch_norm=True)
    assert mlp.norms is not None
    x = torch.randn(50, 6)
    torch.manual_seed(9)
    got = mlp(x)
    torch.manual_seed(9)
    h = x
    for i, layer in enumerate(mlp.linears()):
        h = nn.functional.linear(h, layer.weight, layer.bias)
        if i == 0 or relu_last:
            h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
            h = mlp._dropped(torch.relu(h))
    torch.testing.assert_close(got, h, rtol=1e-4, atol=1e-5)
    assert len(mlp.norms) == (2 if relu_last else 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_evaluation_drops_nothing_and_takes_running_statistics(dtype):
    torch.manual_seed(10)
    mlp = MLP([6, 32, 1], relu_last=False, dropout=0.5, batch_norm=True, dtype=dtype)
    x = torch.randn(64, 6)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    torch.testing.assert_close(mlp(x)[:7], mlp(x[:7]))
    assert mlp(x).dtype == torch.float32
    plain = MLP([6, 32, 1], relu_last=False, dtype=dtype)
    dropped = MLP([6, 32, 1], relu_last=False, dropout=0.5, dtype=dtype).eval()
    dropped.load_state_dict(plain.state_dict())
    assert torch.equal(plain(x), dropped(x))


def test_a_batch_of_one_sample_trains_with_norms():
    mlp = MLP([6, 8, 1], relu_last=False, batch_norm=True)
    mlp(torch.randn(1, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mlp.parameters())


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [[13, 32, 7, 1], [0, 4], [5, 16]])
def test_frozen_weights_change_no_output(monkeypatch, sizes, dtype, compiles):
    if not compiles:
        monkeypatch.setattr(ways, "_readable", lambda _: False)
    torch.manual_seed(11)
    mlp = MLP(sizes, relu_last=sizes[0] == 0, dropout=0.5, dtype=dtype).eval()
    x = torch.randn(70, sizes[0])
    with torch.no_grad():
        outputs = {rows: mlp(x[:rows]) for rows in (0, 1, 70)}
        expected = outputs[70]
        freeze(nn.Sequential(mlp))
        for rows, output in outputs.items():
            assert torch.equal(mlp(x[:rows]), output)
        assert torch.equal(deepcopy(mlp)(x), expected)
        mlp.train()
        for parameter in mlp.parameters():
            parameter.add_(1.0)
        mlp.eval()
        assert not torch.equal(mlp(x), expected)
    freeze(mlp)
    # Gradients are of the weights themselves.
    mlp(x).sum().backward()
    assert all(p.grad is not None for p in mlp.parameters() if p.numel())


def test_norms_are_never_frozen():
    mlp = MLP([6, 8, 1], relu_last=False, batch_norm=True).eval()
    x = torch.randn(9, 6)
    with torch.no_grad():
        expected = mlp(x)
        mlp.freeze()
        assert torch.equal(mlp(x), expected)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout):
    with pytest.raises(ConfigError, match=r"dropout is .*expected at least 0 and below 1"):
        MLP([2, 1], relu_last=False, dropout=dropout)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 0.95), st.integers(0, 1000))
def test_dropout_drops_its_share_and_keeps_the_mean(dropout, seed):
    mlp = MLP([3, 3], relu_last=False, dropout=dropout)
    torch.manual_seed(seed)
    ones = torch.ones(401, 99)
    dropped = mlp._dropped(ones)
    kept = dropped[dropped > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - dropout)))
    error = (dropout / (1 - dropout) / ones.numel()) ** 0.5
    assert abs(dropped.mean() - 1) < 6 * error
    assert torch.equal(mlp.eval()._dropped(ones), ones)
