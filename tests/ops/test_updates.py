"""Sparse updates of the compiled kernels against plain torch in float64."""

import pytest
import torch
from torch import Tensor

from dlrm.ops import reference

from .draws import Draw, assert_same_bits_on_threads, dims, draw

UPDATES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
ADAM = {"step": 3, "beta1": 0.8, "beta2": 0.9}


def states(name: str, d: Draw) -> list[Tensor]:
    shape = tuple(d.weight.shape)
    if name == "rowwise_adagrad":
        return [d.state(shape[0])]
    if name == "adam":
        return [d.state(shape[0], 2, shape[1])]
    return [d.state(*shape)] if name == "adagrad" else []


def apply(module, name: str, weight: Tensor, state: list[Tensor], d: Draw, **storage) -> None:
    grad = d.grad.to(state[0].dtype) if state else d.grad
    if weight.dtype == torch.float64:
        grad = d.grad.double()
    update = getattr(module, f"{name}_update")
    if name == "adam":
        update(weight, *state, d.rows, grad, 0.1, eps=1e-3, **ADAM, **storage)
    elif name == "sgd":
        update(weight, d.rows, grad, 0.1, **storage)
    else:
        update(weight, *state, d.rows, grad, 0.1, 1e-3, **storage)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_equal_the_reference_in_float64(kernels, name, seed):
    for dim in dims(seed + 10):
        d = draw(seed * 1000 + dim, dim)
        state = states(name, d)
        weight, wide = d.weight.clone(), d.weight.double()
        wide_state = [s.double() for s in state]
        apply(kernels, name, weight, state, d)
        apply(reference, name, wide, wide_state, d)
        for ours, theirs in zip([weight, *state], [wide, *wide_state], strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", UPDATES)
def test_rows_that_were_not_looked_up_stay_as_they_are(kernels, name):
    d = draw(4, 24, rows=500, count=60)
    state = states(name, d)
    weight, before = d.weight.clone(), [s.clone() for s in (d.weight, *state)]
    apply(kernels, name, weight, state, d)
    other = torch.ones(500, dtype=torch.bool).index_fill_(0, d.rows, False)
    for now, then in zip([weight, *state], before, strict=True):
        assert torch.equal(now[other], then[other])
        assert not torch.equal(now, then)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("count", [600, 4001])
def test_any_number_of_threads_gives_the_same_bits(kernels, count, name, storage):
    # With many duplicates: their order shows in the bits. Few and many rows a thread sort apart.
    d = draw(6, 48, rows=count // 10, count=count)

    def updated() -> list[Tensor]:
        weight, lower = d.weight.clone(), None
        if storage != "fp32":
            weight = weight.bfloat16()
            lower = torch.zeros_like(weight, dtype=torch.int16) if storage == "split" else None
        d.generator.manual_seed(1)
        state = states(name, d)
        apply(kernels, name, weight, state, d, lower=lower, seed=9)
        return [weight, *state, *([] if lower is None else [lower])]

    assert_same_bits_on_threads(updated)


@pytest.mark.parametrize("name", UPDATES)
def test_a_split_weight_is_a_float_weight_to_the_bit(kernels, name):
    # To the bit in each path by itself: compiled code may contract a product and a sum.
    for module in (kernels, reference):
        for dim in (7, 16, 100):
            d = draw(dim, dim)
            upper = d.weight.bfloat16()
            weight, lower = upper.float(), torch.zeros_like(upper, dtype=torch.int16)
            state = states(name, d)
            split_state = [s.clone() for s in state]
            for _ in range(3):
                apply(module, name, weight, state, d)
                apply(module, name, upper, split_state, d, lower=lower)
            bits = (upper.view(torch.int16).int() << 16) | (lower.int() & 0xFFFF)
            assert torch.equal(bits.view(torch.float32), weight)
            assert torch.equal(
                upper.float(), (weight.view(torch.int32) & -65536).view(torch.float32)
            )


def rounding_keeps_the_expectation(module, name: str) -> None:
    d = draw(8, 16, rows=40, count=100)
    start = d.weight.bfloat16()
    first = states(name, d)
    exact, exact_state = start.float(), [s.clone() for s in first]
    apply(module, name, exact, exact_state, d)
    total, seeds = torch.zeros_like(exact), 100
    for seed in range(1, seeds + 1):
        weight, state = start.clone(), [s.clone() for s in first]
        apply(module, name, weight, state, d, seed=seed)
        step = torch.maximum(exact.abs(), weight.float().abs()) * 2**-7
        assert ((weight.float() - exact).abs() <= step).all()
        total += weight.float()
    # One rounding has a standard deviation of at most half a step; four of the mean's for each
    # element, and for the average over all elements.
    deviation = exact.abs() * 2**-7 * 0.5 / seeds**0.5
    difference = total / seeds - exact
    assert (difference.abs() <= 4 * deviation).float().mean() > 0.99
    assert (difference / deviation).mean().abs() < 4 / difference.numel() ** 0.5


@pytest.mark.parametrize("name", UPDATES)
def test_stochastic_rounding_keeps_the_expectation(kernels, name):
    for module in (kernels, reference):
        rounding_keeps_the_expectation(module, name)


@pytest.mark.parametrize("name", UPDATES)
def test_without_a_seed_updates_round_to_the_nearest(kernels, name):
    for module in (kernels, reference):
        for dim in (7, 16, 100):
            # Distinct rows: the order of a sum shows in the last bits.
            d = draw(dim, dim, rows=90, count=60)
            d.rows = torch.randperm(90, generator=d.generator)[:60]
            start, first = d.weight.bfloat16(), states(name, d)
            exact, state = start.float(), [s.clone() for s in first]
            apply(module, name, exact, state, d)
            weight, ours = start.clone(), [s.clone() for s in first]
            apply(module, name, weight, ours, d)
            assert all(torch.equal(a, b) for a, b in zip(ours, state, strict=True))
            # Compiled code may contract a product and a sum: one in many goes the other way.
            off = (weight.float() - exact.bfloat16().float()).abs()
            assert (off <= exact.abs() * 2**-7).all()
            assert (off > 0).float().mean() < 0.001


def test_rounding_to_the_nearest_loses_small_steps_and_rounding_at_random_does_not(kernels):
    rows, grad = torch.arange(500), torch.full((500, 16), 2.0**-11)
    for module in (kernels, reference):
        lost, kept = (torch.ones(500, 16, dtype=torch.bfloat16) for _ in range(2))
        for step in range(1, 65):
            module.sgd_update(lost, rows, grad, 1.0)
            module.sgd_update(kept, rows, grad, 1.0, seed=step)
        assert (lost == 1).all()
        assert abs(float(kept.float().mean()) - (1 - 64 * 2**-11)) < 0.001


def test_the_same_seed_rounds_the_same_in_both_backends(kernels):
    # A step that floats represent exactly leaves the noise as the only thing that decides.
    d = draw(9, 21, rows=300, count=500)
    grad = torch.full((500, 21), 2.0**-12)
    rows = torch.randperm(300)[:200]
    outcomes = []
    for module, seed in ((kernels, 5), (reference, 5), (kernels, 6)):
        weight = d.weight.bfloat16()
        module.sgd_update(weight, rows, grad[:200], 1.0, seed=seed)
        outcomes.append(weight)
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


def test_infinite_and_missing_numbers_survive_every_storage(kernels):
    grad = torch.tensor([[float("inf"), float("-inf"), float("nan"), 3.4e38]])
    rows = torch.tensor([0])
    for module in (kernels, reference):
        for lower in (None, torch.zeros(1, 4, dtype=torch.int16)):
            weight = torch.zeros(1, 4, dtype=torch.bfloat16)
            module.sgd_update(weight, rows, grad, -1.0, lower=lower, seed=3)
            assert weight[0, 0] == float("inf")
            assert weight[0, 1] == float("-inf")
            assert weight[0, 2].isnan()
            assert weight[0, 3] > 3.3e38


def test_adam_equals_torch_sparse_adam_where_epsilon_is_negligible(kernels):
    d = draw(11, 12, rows=30, count=50)
    ours = d.weight.clone()
    moments = torch.zeros(30, 2, 12)
    theirs = torch.nn.Parameter(d.weight.double())
    optimizer = torch.optim.SparseAdam([theirs], lr=0.05)
    for step in range(1, 6):
        rows, grad = d.rows[:: step + 1], d.grad[:: step + 1]
        theirs.grad = torch.sparse_coo_tensor(
            rows[None], grad.double(), theirs.shape, check_invariants=False
        )
        optimizer.step()
        kernels.adam_update(ours, moments, rows, grad, 0.05, step=step)
    torch.testing.assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=1e-5)


def test_an_update_without_rows_changes_nothing(kernels):
    for name in UPDATES:
        d = draw(1, 16, rows=5, count=0)
        weight, state = d.weight.clone(), states(name, d)
        apply(kernels, name, weight, state, d)
        assert torch.equal(weight, d.weight)


def test_what_does_not_fit_is_refused_before_the_kernel(kernels):
    d = draw(1, 16)
    with pytest.raises(TypeError, match=r"float64.*expected contiguous float32"):
        kernels.adagrad_update(
            d.weight, torch.zeros_like(d.weight).double(), d.rows, d.grad, 0.1, 0.0
        )
    with pytest.raises(TypeError, match="gradient is"):
        kernels.sgd_update(d.weight, d.rows, d.grad[1:], 0.1)
    with pytest.raises(TypeError, match="lower half"):
        kernels.sgd_update(d.weight, d.rows, d.grad, 0.1, lower=torch.zeros(1, 1))


def test_an_update_is_seen_by_autograd(kernels):
    weight = torch.randn(4, 16, requires_grad=True)
    out = (weight * weight).sum()
    with torch.no_grad():
        kernels.sgd_update(weight, torch.tensor([1]), torch.ones(1, 16), 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()
