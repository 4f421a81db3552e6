"""An MLP's passes, compiled, against plain layers in float64."""

import ctypes
import mmap
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.ops import backend, build, cpu, forced_reference, mlp, ways
from dlrm.ops.cpu import library

BF16 = torch.bfloat16
DRAWS = 12
NARROW: tuple[mlp.Products, ...] = ("bf16", "emulated", "tiles")


def drawn(seed: int) -> tuple[list[Tensor], Tensor, bool]:
    """Parameters, inputs and whether the last layer has its ReLU."""
    pick = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    sizes = [
        pick.choice([1, 2, 7, 13, 16, 33, 48, 49, 130, 367]) for _ in range(pick.randint(2, 5))
    ]
    batch = pick.choice([1, 2, 7, 8, 65, 129, 300])
    parameters: list[Tensor] = []
    for n, k in pairwise(sizes):
        parameters.append(torch.randn(k, n, generator=generator) / n**0.5)
        parameters.append(torch.randn(k, generator=generator) / 4)
    return parameters, torch.randn(batch, sizes[0], generator=generator), pick.random() < 0.5


def check_runs(products: mlp.Products) -> None:
    """Skip the test where this CPU lacks these products."""
    if products == "bf16" and not library.native.multiplies_bf16():
        pytest.skip("this CPU has no AVX512-BF16")
    if products == "tiles" and not library.native.multiplies_tiles():
        pytest.skip("this CPU has no AMX, or Linux grants none")


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The value that `dtype` keeps of x, with the gradient of x."""
    return x + (x.to(dtype).to(x.dtype) - x).detach()


def oracle(
    x: Tensor,
    parameters: list[Tensor],
    dtype: torch.dtype,
    relu_last: bool,
    dropout: mlp.Dropout | None = None,
) -> Tensor:
    """Layers in float64 whose operands are rounded to `dtype`, but for a last one without ReLU."""
    layers = len(parameters) // 2
    for i in range(layers):
        last = i == layers - 1 and not relu_last
        kept = torch.float64 if last else dtype
        x = F.linear(rounded(x, kept), rounded(parameters[2 * i], kept), parameters[2 * i + 1])
        x = x if last else torch.relu(x)
        if dropout is not None and not last:
            kept = dropout.drawn[i][: x.numel()].view(x.shape) >= dropout.least
            x = x * kept / (1 - dropout.share)
    return x


def close(ours: Tensor, theirs: Tensor, share: float) -> None:
    """The difference is a small share of the whole, in the Euclidean norm."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.detach().double(), theirs.detach().double()
    assert float((ours - theirs).norm()) <= share * float(theirs.norm()) + 1e-6


@pytest.mark.parametrize("seed", range(DRAWS))
def test_float32_equals_plain_layers(kernels, seed):
    parameters, x, relu_last = drawn(seed)
    ours = [p.clone().requires_grad_() for p in (x, *parameters)]
    exact = [p.double().requires_grad_() for p in (x, *parameters)]
    out = mlp.mlp(ours[0], ours[1:], "fp32", relu_last=relu_last)
    expected = oracle(exact[0], exact[1:], torch.float64, relu_last)
    close(out, expected, 1e-5)
    factor = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    (out * factor).sum().backward()
    (expected * factor.double()).sum().backward()
    for a, b in zip(ours, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        # A ReLU may fall on the other side where its input is within rounding of zero.
        close(a.grad, b.grad, 1e-4)


@pytest.mark.parametrize("x_dtype", [torch.float32, BF16])
@pytest.mark.parametrize("products", NARROW)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_bfloat16_is_within_its_rounding(kernels, seed, products, x_dtype):
    check_runs(products)
    parameters, x, relu_last = drawn(seed)
    # All positive, so that no ReLU falls on the other side: what is left is rounding.
    parameters, x = [p.abs() for p in parameters], x.abs().to(x_dtype)
    ours = [p.clone().requires_grad_() for p in (x, *parameters)]
    exact = [p.double().requires_grad_() for p in (x, *parameters)]
    out = mlp.mlp(ours[0], ours[1:], products, relu_last=relu_last)
    expected = oracle(exact[0], exact[1:], BF16, relu_last)
    assert out.dtype == (BF16 if relu_last else torch.float32)
    close(out, expected, 2**-7)
    factor = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).abs()
    (out.float() * factor).sum().backward()
    (expected * factor.double()).sum().backward()
    for a, b in zip(ours, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == a.dtype
        close(a.grad, b.grad, 2**-6)


@pytest.mark.parametrize("products", ["fp32", *NARROW])
@pytest.mark.parametrize("seed", range(DRAWS))
def test_what_is_dropped_is_dropped_both_ways(kernels, seed, products):
    check_runs(products)
    parameters, x, relu_last = drawn(seed)
    parameters, x = [p.abs() for p in parameters], x.abs()
    rectified = parameters[1::2] if relu_last else parameters[1:-1:2]
    generator = torch.Generator().manual_seed(seed)
    draws = [mlp.Dropout.draws(len(x) * len(bias), generator) for bias in rectified]
    dropout = mlp.Dropout(draws, random.Random(seed).choice([0.0, 0.1, 0.5, 0.93]))
    ours = [p.clone().requires_grad_() for p in (x, *parameters)]
    exact = [p.double().requires_grad_() for p in (x, *parameters)]
    out = mlp.mlp(ours[0], ours[1:], products, relu_last=relu_last, dropout=dropout)
    dtype = torch.float64 if products == "fp32" else BF16
    expected = oracle(exact[0], exact[1:], dtype, relu_last, dropout)
    close(out, expected, 1e-5 if products == "fp32" else 2**-7)
    assert torch.equal(out == 0, expected == 0)
    with torch.no_grad():
        alone = mlp.mlp(x, parameters, products, relu_last=relu_last, dropout=dropout)
    assert torch.equal(alone, out)
    factor = torch.randn(out.shape, generator=generator).abs()
    (out.float() * factor).sum().backward()
    (expected * factor.double()).sum().backward()
    for a, b in zip(ours, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        close(a.grad, b.grad, 1e-4 if products == "fp32" else 2**-6)


def before_a_gap(tensor: Tensor) -> Tensor:
    """Return a copy right before memory that nobody may read."""
    size = tensor.numel() * tensor.element_size()
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = (ctypes.c_char * (whole + mmap.PAGESIZE)).from_buffer(
        mmap.mmap(-1, whole + mmap.PAGESIZE)
    )
    end = ctypes.c_void_p(ctypes.addressof(memory) + whole)
    assert ctypes.CDLL(None).mprotect(end, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=whole - size)
    return copy.copy_(tensor)


@pytest.mark.parametrize("products", ["fp32", *NARROW])
@pytest.mark.parametrize("sizes", [(3, 1), (13, 16, 17), (4, 33, 48, 49)])
def test_no_more_is_read_of_what_is_drawn_than_is_there(kernels, sizes, products):
    check_runs(products)
    parameters = [torch.randn(k, *n) for n_, k in pairwise(sizes) for n in ([n_], [])]
    for batch in (1, 2, 33):
        draws = [mlp.Dropout.draws(batch * k) for k in sizes[1:]]
        x, dropouts = torch.randn(batch, sizes[0]), (draws, [*map(before_a_gap, draws)])
        with torch.no_grad():
            ours, same = (
                mlp.mlp(x, parameters, products, relu_last=True, dropout=mlp.Dropout(each, 0.3))
                for each in dropouts
            )
        assert torch.equal(ours, same)


@pytest.mark.parametrize("share", [0.0, 1e-6, 1 / 3, 0.999, 1 - 1e-6, 1 - 1e-12])
def test_some_numbers_keep_an_activation_whatever_the_share(share):
    drawn = torch.arange(-(2**15), 2**15).short()
    kept = int((drawn >= mlp.Dropout([], share).least).sum())
    assert kept == max(1, round((1 - share) * 2**16))


@pytest.mark.parametrize("products", ["fp32", *NARROW])
def test_any_number_of_threads_and_any_chunk_give_the_same_bits(kernels, products):
    check_runs(products)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2100, 33, generator=generator)  # more than a chunk
    parameters = [
        torch.randn(shape, generator=generator) / 6 for shape in ((70, 33), (70,), (17, 70), (17,))
    ]
    draws = [mlp.Dropout.draws(2100 * k, generator) for k in (70, 17)]
    dropout = mlp.Dropout(draws, 0.25)
    outcomes: list[list[Tensor]] = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        ours = [p.clone().requires_grad_() for p in (x, *parameters)]
        out = mlp.mlp(ours[0], ours[1:], products, relu_last=True, dropout=dropout)
        out.float().square().sum().backward()
        outcomes.append([out.detach(), *(p.grad for p in ours if p.grad is not None)])
    assert len(outcomes[0]) == 6
    exact = [p.double().requires_grad_() for p in (x, *parameters)]
    expected = oracle(exact[0], exact[1:], torch.float64, relu_last=True, dropout=dropout)
    expected.square().sum().backward()
    for ours, theirs in zip(outcomes[0], [expected, *(p.grad for p in exact)], strict=True):
        assert theirs is not None
        close(ours, theirs, 1e-4 if products == "fp32" else 0.1)
    for outcome in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcome, outcomes[0], strict=True))


def test_what_it_cannot_read_is_left_to_torch(monkeypatch):
    weight, bias = torch.ones(3, 4), torch.ones(3)
    x = torch.ones(2, 4)
    if forced_reference() or cpu.available() is not None or "avx512" not in build.supported():
        pytest.skip("no kernels for AVX-512 here")
    backend(weight)  # loads what $DLRM_KERNELS forces, before others are loaded here
    before = cpu.instruction_set()
    cpu.use("avx512")
    try:
        assert chosen(x, [weight, bias]) == "fp32"
        for wrong in (x[0], x[:0], x[:, :3], x.double(), x[None]):
            assert chosen(wrong, [weight, bias]) is None
        assert chosen(x, [weight.double(), bias]) is None
        assert chosen(x, [torch.ones(4, 3).t(), bias]) is None
        monkeypatch.setattr(cpu, "instruction_set", lambda: "avx2")
        assert chosen(x, [weight, bias]) is None
    finally:
        cpu.use(before)


def chosen(x: Tensor, parameters: list[Tensor]) -> mlp.Products | None:
    return ways.chosen(x, parameters, "fp32")


@pytest.mark.parametrize("x_dtype", [torch.float32, BF16])
@pytest.mark.parametrize("products", ["fp32", *NARROW])
@pytest.mark.parametrize("seed", range(DRAWS))
def test_packed_weights_and_calls_without_gradients_give_the_same_bits(
    kernels, seed, products, x_dtype
):
    check_runs(products)
    parameters, x, relu_last = drawn(seed)
    x = x.to(x_dtype)
    expected = mlp.mlp(x, parameters, products, relu_last=relu_last)
    packed = mlp.Packed(parameters, products, relu_last=relu_last)
    for weight in parameters:
        weight.fill_(torch.nan)  # which are no longer needed
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert torch.equal(packed(x), expected)
        # A sample is what it is, whatever is beside it.
        for rows in (0, 1, len(x) // 2):
            assert torch.equal(packed(x[:rows]), expected[:rows])
    parameters, x, _ = drawn(seed)
    x = x.to(x_dtype)
    with torch.no_grad():
        assert torch.equal(mlp.mlp(x, parameters, products, relu_last=relu_last), expected)


def test_threads_share_packed_weights(kernels):
    parameters, _, _ = drawn(5)
    packed = mlp.Packed(parameters, "fp32", relu_last=False)
    generator = torch.Generator().manual_seed(0)
    n = parameters[0].shape[1]
    inputs = [torch.randn(rows, n, generator=generator) for rows in (1, 9, 200, 30) * 20]
    expected = [packed(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(packed, inputs))
    assert all(map(torch.equal, outputs, expected))


def test_tiles_of_this_cpu_give_the_bits_of_emulated_ones(kernels):
    check_runs("tiles")
    for seed in range(DRAWS):
        parameters, x, relu_last = drawn(seed)
        outcomes: list[list[Tensor]] = []
        for products in NARROW[1:]:
            ours = [p.clone().requires_grad_() for p in (x, *parameters)]
            out = mlp.mlp(ours[0], ours[1:], products, relu_last=relu_last)
            out.float().square().sum().backward()
            outcomes.append([out.detach(), *(p.grad for p in ours if p.grad is not None)])
        assert all(map(torch.equal, *outcomes))


def test_an_emulated_tile_sums_as_the_manual_says(kernels):
    # In floats 2^24 + 1 is 2^24. The first and the second numbers of 16 words have sums of their
    # own, so that 1 + 1 meets 2^24 as 2.
    weight = torch.zeros(1, 64)
    weight[0, 0], weight[0, 1], weight[0, 3], weight[0, 32] = 2.0**24, 1, 1, -(2.0**24)
    out = mlp.mlp(torch.ones(1, 64), [weight, torch.zeros(1)], "emulated", relu_last=True)
    assert out.item() == 2
