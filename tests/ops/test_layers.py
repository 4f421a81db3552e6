"""The dot interaction, and the gradient of a ReLU and a bias, against plain torch in float64."""

import pytest
import torch

from dlrm.ops import reference

from .draws import assert_same_bits_on_threads, dims

BF16 = torch.bfloat16
SHAPES = [(0, 3), (1, 1), (3, 2), (5, 15), (4, 16), (2, 26), (40, 26), (1, 40)]
LAYER_SHAPES = [(0, 5), (1, 1), (7, 63), (3, 64), (5, 65), (130, 16), (300, 130), (40, 512)]


def inputs(batch: int, tables: int, dim: int, x_dtype: torch.dtype, e_dtype: torch.dtype):
    generator = torch.Generator().manual_seed(batch * 1000 + tables * 10 + dim)
    x = torch.randn(batch, dim, generator=generator).to(x_dtype).requires_grad_()
    e = torch.randn(batch, tables, dim, generator=generator).to(e_dtype).requires_grad_()
    return x, e


@pytest.mark.parametrize(
    "types", [(torch.float32, torch.float32), (BF16, torch.float32), (BF16, BF16)]
)
@pytest.mark.parametrize("self_interaction", [False, True])
def test_pairs_and_gradients_equal_the_reference(kernels, self_interaction, types):
    for n, dim in enumerate(dims(21, 6)):
        batch, tables = SHAPES[n % len(SHAPES)]
        x, e = inputs(batch, tables, dim, *types)
        out = kernels.dot_interaction(x, e, self_interaction)
        assert out.dtype == x.dtype
        with torch.no_grad():
            assert torch.equal(kernels.dot_interaction(x, e, self_interaction), out)
        factor = torch.sin(torch.arange(out.numel()).view(out.shape)).to(out.dtype)
        ours = torch.autograd.grad(out, [x, e], factor)
        wide = [t.detach().double().requires_grad_() for t in (x, e)]
        expected = reference.dot_interaction(wide[0], wide[1], self_interaction)
        theirs = torch.autograd.grad(expected, wide, factor.double())
        # bfloat16 keeps eight bits.
        rtol, atol = (2**-8, 1e-3) if x.dtype == BF16 else (1e-4, 1e-4)
        torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=atol)
        for a, b, t in zip(ours, theirs, (x, e), strict=True):
            assert a.dtype == t.dtype
            torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)


def test_the_dense_vector_passes_unchanged(kernels):
    for dtype in (torch.float32, BF16):
        x, e = inputs(6, 4, 20, dtype, dtype)
        assert torch.equal(kernels.dot_interaction(x, e, False)[:, :20], x)


def test_any_number_of_threads_gives_the_same_bits(kernels):
    x, e = inputs(300, 26, 16, torch.float32, torch.float32)
    generator = torch.Generator().manual_seed(0)
    grad, y = (torch.randn(700, 512, generator=generator) for _ in range(2))

    def computed() -> list[torch.Tensor]:
        out = kernels.dot_interaction(x, e, False)
        gradients = torch.autograd.grad(out.sin().sum(), [x, e])
        return [out, *gradients, *kernels.relu_gradient(grad, y)]

    assert_same_bits_on_threads(computed)


def test_bf16_differs_from_the_reference_by_the_last_rounding_at_most(kernels):
    x, e = inputs(50, 26, 16, BF16, torch.float32)
    ours = kernels.dot_interaction(x, e, True).float()
    theirs = reference.dot_interaction(x, e, True).float()
    assert (ours != theirs).float().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", LAYER_SHAPES)
def test_mask_and_sum_equal_the_reference(kernels, shape, relu, dtype):
    generator = torch.Generator().manual_seed(sum(shape))
    grad = torch.randn(shape, generator=generator).to(dtype)
    y = torch.relu(torch.randn(shape, generator=generator)).to(dtype) if relu else None
    before = grad.clone()
    out, total = kernels.relu_gradient(grad, y)
    expected, sum64 = reference.relu_gradient(grad.double(), None if y is None else y.double())
    assert out.dtype == dtype
    assert total.dtype == torch.float32
    assert torch.equal(out.double(), expected)
    assert torch.equal(grad, before)
    torch.testing.assert_close(total.double(), sum64, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (20_000, 1)])
def test_cross_entropy_equals_the_reference(kernels, shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * 8
    logits[0] = 200.0  # where the sigmoid is one
    labels = torch.rand(shape, generator=generator).round()
    outcomes: list[list[torch.Tensor]] = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        z = logits.clone().requires_grad_()
        loss = kernels.bce(z, labels)
        (2 * loss).backward()
        assert z.grad is not None
        outcomes.append([loss.detach(), z.grad])
    assert all(map(torch.equal, *outcomes))
    exact = logits.double().requires_grad_()
    expected = reference.bce(exact, labels.double())
    (2 * expected).backward()
    torch.testing.assert_close(outcomes[0][0].double(), expected, rtol=1e-6, atol=0)
    assert exact.grad is not None
    size = logits.numel()
    torch.testing.assert_close(outcomes[0][1].double() * size, exact.grad * size, rtol=0, atol=1e-6)
