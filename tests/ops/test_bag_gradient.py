"""Gradients of bags: what stands in for a sparse tensor, and updates that read it as it is."""

import random

import pytest
import torch
from torch import Tensor, nn

from dlrm.ops import reference
from dlrm.ops.bag_gradient import BagGradient
from dlrm.ops.reference.updates import of_lookups
from dlrm.training.clip import clip_gradients

from .draws import Draw, assert_same_bits_on_threads, bags, dims, draw

UPDATES = ("sgd", "adagrad", "rowwise_adagrad", "adam")


def bagged(seed: int, dim: int, *, weighted: bool) -> tuple[Draw, Tensor, Tensor, Tensor | None]:
    """Rows in bags, many of them empty, in any order: gradients, bags and factors."""
    offsets = bags(seed, random.Random(seed).choice([1, 5, 70]))
    d = draw(seed, dim, count=int(offsets[-1]))
    groups = len(offsets) - 1
    number = torch.repeat_interleave(torch.arange(groups), offsets.diff()).int()
    number = torch.randperm(groups, generator=d.generator).int()[number.long()]
    grad = torch.randn(groups, dim, generator=d.generator)
    return d, grad, number, d.state(len(d.rows)) if weighted else None


def fresh_state(name: str, d: Draw) -> list[Tensor]:
    rows, dim = d.weight.shape
    shapes = {"sgd": [], "rowwise_adagrad": [(rows,)], "adam": [(rows, 2, dim)]}
    return [d.state(*shape) for shape in shapes.get(name, [(rows, dim)])]


def apply(module, name: str, weight: Tensor, state: list[Tensor], *given: Tensor, **options):
    update = getattr(module, f"{name}_update")
    if name == "adam":
        update(weight, *state, *given, 0.1, step=3, eps=1e-3, **options)
    else:
        update(weight, *state, *given, 0.1, *([1e-3] if state else []), **options)


@pytest.mark.parametrize("options", [{}, {"l2": 0.7}, {"every_row": True}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_bags_equal_the_reference_in_float64(kernels, name, weighted, options):
    for dim in dims(len(name) + weighted, 6):
        d, grad, number, scale = bagged(dim, dim, weighted=weighted)
        state = fresh_state(name, d)
        weight, wide = d.weight.clone(), d.weight.double()
        wide_state = [s.double() for s in state]
        apply(kernels, name, weight, state, d.rows, grad, bags=number, scale=scale, **options)
        each = grad.double()[number.long()]
        each = each if scale is None else each * scale[:, None].double()
        apply(reference, name, wide, wide_state, d.rows, each, **options)
        for ours, theirs in zip([weight, *state], [wide, *wide_state], strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_bags_are_those_of_their_rows_bit_for_bit(kernels, name, storage):
    for dim in (16, 20):
        d, grad, number, _ = bagged(7, dim, weighted=False)
        state = fresh_state(name, d)
        upper = d.weight if storage == "fp32" else d.weight.bfloat16()
        outcomes = []
        for given in ({"bags": number}, {}):
            weight, mine = upper.clone(), [s.clone() for s in state]
            lower = torch.zeros_like(weight, dtype=torch.int16) if storage == "split" else None
            each = grad if given else of_lookups(grad, number, None)
            apply(kernels, name, weight, mine, d.rows, each, lower=lower, seed=5, **given)
            outcomes.append([weight, *mine, *([] if lower is None else [lower])])
        assert all(map(torch.equal, *outcomes))


@pytest.mark.parametrize("name", UPDATES)
def test_any_number_of_threads_gives_the_same_bits(kernels, name):
    offsets = bags(3, 400)
    d = draw(3, 48, rows=500, count=int(offsets[-1]))
    number = torch.repeat_interleave(torch.arange(400), offsets.diff()).int()
    grad, scale = d.state(400, 48), d.state(len(d.rows))
    state = fresh_state(name, d)

    def updated() -> list[Tensor]:
        weight, mine = d.weight.clone(), [s.clone() for s in state]
        apply(kernels, name, weight, mine, d.rows, grad, bags=number, scale=scale)
        return [weight, *mine]

    assert_same_bits_on_threads(updated)


def leave_gradient(kernels, weight: Tensor, times: int = 1) -> Tensor:
    """Leave the gradient of bags in a weight (9, 6); return what it must be, (9, 6)."""
    rows = torch.tensor([1, 2, 2, 8, 0, 1])
    offsets = torch.tensor([0, 3, 3, 5, 6])
    scale = torch.tensor([1.0, 0.5, 2.0, 1.0, 3.0, 1.0])
    factor = torch.arange(24.0).view(4, 6)
    for _ in range(times):
        out = kernels.pooled_lookup(weight, rows, offsets, per_sample_weights=scale)
        (out * factor).sum().backward()
    each = factor[torch.tensor([0, 0, 0, 2, 2, 3])] * scale[:, None]
    return torch.zeros(9, 6).index_add_(0, rows, each) * times


def test_a_gradient_of_bags_is_a_sparse_tensor_to_whoever_looks(kernels):
    weight = nn.Parameter(torch.randn(9, 6))
    expected = leave_gradient(kernels, weight)
    grad = weight.grad
    assert isinstance(grad, BagGradient)
    assert grad.is_sparse
    assert grad.bags.sparse is None
    assert grad.shape == (9, 6)
    assert torch.equal(grad.to_dense(), expected)
    assert torch.equal(grad._indices(), torch.tensor([[1, 2, 2, 8, 0, 1]]))
    assert grad._values().shape == (6, 6)
    assert torch.equal((grad + grad).to_dense(), 2 * expected)
    assert torch.equal(grad.coalesce().to_dense(), expected)
    assert torch.equal(torch.zeros(9, 6).add_(grad), expected)


def test_gradients_of_several_lookups_and_passes_are_added_up(kernels):
    weight = nn.Parameter(torch.randn(9, 6))
    expected = leave_gradient(kernels, weight, times=2)
    assert weight.grad is not None
    assert torch.equal(weight.grad.to_dense(), expected)
    weight.grad = None
    expected = leave_gradient(kernels, weight)
    one = torch.zeros(9, 6)
    one[3:5] = 1
    kernels.lookup(weight, torch.tensor([3, 4])).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad.to_dense(), expected + one)
    leave_gradient(kernels, weight)
    assert torch.equal(weight.grad.to_dense(), 2 * expected + one)
    weight.grad = None
    one *= 3
    offsets = torch.tensor([0, 2])
    both = [kernels.pooled_lookup(weight, torch.tensor([3, 4]), offsets) for _ in range(2)]
    (both[0] + both[1] + kernels.lookup(weight, torch.tensor([3, 4])).sum(0)).sum().backward()
    total: Tensor | None = weight.grad
    assert total is not None
    assert torch.equal(total.to_dense(), one)


def test_what_a_hook_kept_stays_as_it_was(kernels):
    weight = nn.Parameter(torch.randn(9, 6))
    kept: list[Tensor] = []
    weight.register_hook(kept.append)
    expected = leave_gradient(kernels, weight, times=2) / 2
    assert weight.grad is not None
    assert torch.equal(weight.grad.to_dense(), 2 * expected)
    assert torch.equal(kept[0].to_dense(), expected)
    assert torch.equal(kept[1].to_dense(), expected)


def test_clipping_reaches_what_is_applied(kernels):
    weight = nn.Parameter(torch.randn(9, 6))
    expected = leave_gradient(kernels, weight)
    clip_gradients([{"params": [weight], "sparse": True}], 0.5)
    assert weight.grad is not None
    clipped = expected * 0.5 / expected.norm()
    torch.testing.assert_close(weight.grad.to_dense(), clipped)


def test_optimizers_of_torch_take_it(kernels):
    weight = nn.Parameter(torch.zeros(9, 6))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    expected = leave_gradient(kernels, weight)
    optimizer.step()
    assert torch.equal(weight, -0.5 * expected)
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad is not None
    assert not weight.grad.to_dense().any()
