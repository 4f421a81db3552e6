"""Lookups of the compiled kernels against plain torch in float64."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.ops import reference

from .draws import assert_same_bits_on_threads, bags, dims, draw


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_lookup_returns_the_rows_and_leaves_their_gradients(kernels, seed, dtype):
    for dim in dims(seed):
        d = draw(seed, dim)
        weight = torch.nn.Parameter(d.weight.to(dtype))
        weight.grad_dtype = torch.float32
        out = kernels.lookup(weight, d.rows)
        assert out.dtype == torch.float32
        assert torch.equal(out, weight.detach()[d.rows].float())
        with torch.no_grad():
            assert torch.equal(kernels.lookup(weight, d.rows), out)
        out.backward(d.grad)
        assert weight.grad is not None
        assert torch.equal(weight.grad._indices()[0], d.rows)
        assert torch.equal(weight.grad._values(), d.grad)


def test_the_gradient_is_handed_on_without_a_copy(kernels):
    weight = torch.nn.Parameter(torch.randn(10, 16))
    grad = torch.randn(4, 16)
    kernels.lookup(weight, torch.tensor([1, 2, 2, 9])).backward(grad)
    assert weight.grad is not None
    assert weight.grad._values().data_ptr() == grad.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_and_their_gradients_equal_the_reference(kernels, weighted, dtype):
    for dim in dims(3, 8):
        offsets = bags(dim, random.Random(dim).choice([0, 1, 5, 70]))
        d = draw(dim, dim, count=int(offsets[-1]))
        results = []
        for module, wide in ((kernels, torch.float32), (reference, torch.float64)):
            weight = torch.nn.Parameter(
                d.weight.to(dtype).to(dtype if wide.itemsize == 4 else wide)
            )
            weight.grad_dtype = wide
            scale = (
                torch.linspace(-1, 2, len(d.rows)).to(wide).requires_grad_() if weighted else None
            )
            out = module.pooled_lookup(weight, d.rows, offsets, per_sample_weights=scale)
            factor = torch.sin(torch.arange(out.numel())).view(out.shape).to(wide)
            (out * factor).sum().backward()
            assert weight.grad is not None
            results.append(
                [out.detach(), weight.grad.to_dense(), None if scale is None else scale.grad]
            )
        for ours, theirs in zip(*results, strict=True):
            if theirs is not None:
                torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bags_that_lie_anywhere_are_those_in_order(kernels, dtype):
    for dim in dims(4, 8):
        offsets = bags(dim, random.Random(dim).choice([0, 1, 5, 70]))
        d = draw(dim, dim, count=int(offsets[-1]))
        order = torch.randperm(len(offsets) - 1, generator=d.generator)
        for module, wide in ((kernels, torch.float32), (reference, torch.float64)):
            weight = torch.nn.Parameter(
                d.weight.to(dtype).to(dtype if wide.itemsize == 4 else wide)
            )
            weight.grad_dtype = wide
            plain = module.pooled_lookup(weight, d.rows, offsets)
            out = module.pooled_ranges(weight, d.rows, offsets[:-1][order], offsets[1:][order])
            assert torch.equal(out, plain[order])
            factor = torch.sin(torch.arange(out.numel())).view(out.shape).to(wide)
            grads = []
            for result, slope in ((out, factor), (plain[order], factor)):
                weight.grad = None
                (result * slope).sum().backward()
                assert weight.grad is not None
                grads.append(weight.grad.to_dense())
            torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("dim", [16, 100])
def test_sums_are_the_same_bits_on_any_number_of_threads(kernels, dim):
    offsets = bags(dim, 400)
    d = draw(dim, dim, rows=500, count=int(offsets[-1]))
    scale = d.state(len(d.rows))
    for factors in (None, scale):
        assert_same_bits_on_threads(
            lambda factors=factors: [kernels.pooled_lookup(d.weight, d.rows, offsets, factors)]
        )


def test_bags_of_one_return_the_very_rows(kernels):
    d = draw(5, 20)
    out = kernels.pooled_lookup(d.weight, d.rows, torch.arange(len(d.rows) + 1))
    assert torch.equal(out, d.weight[d.rows])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    samples=st.integers(0, 4),
    dtype=st.sampled_from([torch.int32, torch.int64]),
    wrong=st.none() | st.tuples(st.integers(0, 10**6), st.sampled_from([-1, 0, 2**31 - 1])),
    bagged=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_rows_of_finds_the_first_wrong_id(kernels, rows, samples, dtype, wrong, bagged, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(rows)
    starts = sizes.cumsum(0) - sizes
    offsets = None
    tables = torch.arange(samples * len(rows)) % len(rows)
    if bagged:
        offsets = bags(seed, samples * len(rows), longest=4)
        tables = tables.repeat_interleave(offsets.diff())
    # Ids at both ends of their tables come often.
    ids = torch.rand(len(tables), generator=generator).mul(1.6).sub(0.3).clamp(0, 0.999)
    ids = (ids * sizes[tables]).to(dtype)
    first = -1
    if wrong is not None and len(ids):
        first = wrong[0] % len(ids)
        ids[first] = sizes[tables[first]] if wrong[1] == 0 else wrong[1]
        ids[-1] = -5
    if not bagged:
        ids = ids.view(samples, len(rows))
    for module in (kernels, reference):
        result, at = module.rows_of(ids, starts, sizes, offsets)
        assert at == first
        if first == -1:
            assert result.dtype == torch.int64
            assert torch.equal(result.flatten(), ids.flatten() + starts[tables])
            assert result.shape == ids.shape


@pytest.mark.parametrize("wrong", [[1, 2, 4], [0, 3, 2, 4], [0, 2, 3], [0, 2, 5]])
def test_rows_of_refuses_offsets_that_do_not_cover_the_ids(kernels, wrong):
    one = torch.tensor([0]), torch.tensor([9])
    for module in (kernels, reference):
        assert module.rows_of(torch.arange(4), *one, torch.tensor(wrong))[1] == -2


def test_elsewhere_than_on_a_cpu_no_id_is_looked_at():
    # What the ids are would have to be waited for; on the meta device there are none.
    sizes = torch.tensor([3, 4], device="meta")
    ids = torch.empty(5, 2, dtype=torch.int64, device="meta")
    for arguments in ((ids,), (ids.flatten(), torch.empty(11, dtype=torch.int64, device="meta"))):
        rows, wrong = reference.rows_of(arguments[0], sizes, sizes, *arguments[1:])
        assert wrong == -1
        assert rows.is_meta
        assert rows.shape == arguments[0].shape


def test_the_largest_ids_are_out_of_range_and_nothing_overflows(kernels):
    sizes = torch.tensor([3, 4])
    starts = torch.tensor([0, 3])
    for value in (2**63 - 1, -(2**63)):
        ids = torch.tensor([[0, 3], [2, value]])
        assert kernels.rows_of(ids, starts, sizes)[1] == 3
