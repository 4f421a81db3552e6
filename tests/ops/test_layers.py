"""The gradient of a ReLU and a bias, compiled, against plain torch in float64."""

import pytest
import torch

from dlrm.ops import reference

BF16 = torch.bfloat16
SHAPES = [(0, 5), (1, 1), (7, 63), (3, 64), (5, 65), (130, 16), (300, 130), (40, 512)]


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
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


def test_any_number_of_threads_gives_the_same_bits(kernels):
    generator = torch.Generator().manual_seed(0)
    grad, y = (torch.randn(700, 512, generator=generator) for _ in range(2))
    outcomes = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            outcomes.append(kernels.relu_gradient(grad, y))
    finally:
        torch.set_num_threads(before)
    for out, total in outcomes[1:]:
        assert torch.equal(out, outcomes[0][0])
        assert torch.equal(total, outcomes[0][1])
