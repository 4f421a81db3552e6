"""Updates of dense parameters: plain torch against torch.optim, the kernels against plain torch."""

import random

import pytest
import torch
from torch import Tensor, nn

from dlrm.ops import cpu, dense_backend, forced_reference, reference

from .draws import assert_same_bits_on_threads

BF16 = torch.bfloat16
NAMES = ("sgd", "adagrad", "adam")
STATES = {"sgd": 0, "adagrad": 1, "adam": 2}
SIZES = [(), (0,), (1,), (3, 0), (7,), (4095,), (4096,), (4097,), (2, 9001)]


def draws(seed: int, shapes: list[tuple[int, ...]], name: str) -> list[list[Tensor]]:
    """Weights, states of each kind, and gradients of either type."""
    generator = torch.Generator().manual_seed(seed)
    pick = random.Random(seed)
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    states = [
        [torch.rand(shape, generator=generator) for shape in shapes] for _ in range(STATES[name])
    ]
    grads = [torch.randn(s, generator=generator).to(pick.choice([None, BF16])) for s in shapes]
    return [weights, *states, grads]


def apply(module, name: str, columns: list[list[Tensor]], decay: float) -> None:
    update = getattr(module, f"dense_{name}")
    if name == "adam":
        update(*columns, 0.1, step=3, beta1=0.8, beta2=0.95, eps=1e-3, decay=decay)
    elif name == "adagrad":
        update(*columns, 0.1, 1e-3, decay=decay)
    else:
        update(*columns, 0.1, decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_updates_equal_the_reference_in_float64(kernels, name, seed, decay):
    pick = random.Random(seed)
    shapes = [*SIZES, *((pick.randint(1, 300), pick.randint(1, 70)) for _ in range(6))]
    pick.shuffle(shapes)
    ours = draws(seed, shapes, name)
    theirs = [[t.double() for t in column] for column in ours]
    grads = [g.clone() for g in ours[-1]]
    apply(kernels, name, ours, decay)
    apply(reference, name, theirs, decay)
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(grads, ours[-1], strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_the_reference_equals_torch(name, decay):
    columns = [[t.double() for t in column] for column in draws(5, SIZES, name)]
    columns[1:-1] = [[torch.zeros_like(t) for t in column] for column in columns[1:-1]]
    weights = [nn.Parameter(w.clone()) for w in columns[0]]
    kind = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
    optimizer = kind[name](weights, lr=0.1, weight_decay=decay)
    for step in (1, 2, 3):
        grads = [g * step for g in columns[-1]]
        for w, g in zip(weights, grads, strict=True):
            w.grad = g.clone()
        optimizer.step()
        rest = {"sgd": (), "adagrad": (1e-10,), "adam": ()}[name]
        number = {"step": step} if name == "adam" else {}
        update = getattr(reference, f"dense_{name}")
        update(*columns[:-1], grads, 0.1, *rest, decay=decay, **number)
    for ours, theirs in zip(columns[0], weights, strict=True):
        torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads_gives_the_same_bits(kernels, name):
    shapes = [(13, 512), (512,), (4099,), (1,), (0,), (517, 255), (2,)]

    def updated() -> list[Tensor]:
        columns = draws(9, shapes, name)
        apply(kernels, name, columns, 0.1)
        return [t for column in columns[:-1] for t in column]

    assert_same_bits_on_threads(updated)


def test_no_parameters_are_fine(kernels):
    for module in (kernels, reference):
        for name in NAMES:
            apply(module, name, [[] for _ in range(2 + STATES[name])], 0.0)


def test_an_infinite_weight_without_decay_stays_infinite(kernels):
    for module in (kernels, reference):
        weight = torch.tensor([float("inf"), 1.0])
        module.dense_sgd([weight], [torch.ones(2)], 0.5)
        assert weight.tolist() == [float("inf"), 0.5]


def test_what_does_not_fit_is_refused_before_the_kernel(kernels):
    weights, grads = [torch.zeros(3)], [torch.zeros(3)]
    with pytest.raises(TypeError, match=r"gradient has \[2\] numbers, expected \[3\]"):
        kernels.dense_sgd(weights, [torch.zeros(2)], 0.1)
    with pytest.raises(TypeError, match=r"optimizer state has \[4\] numbers"):
        kernels.dense_adagrad(weights, [torch.zeros(4)], grads, 0.1, 1e-10)
    with pytest.raises(TypeError, match="contiguous float32"):
        kernels.dense_adagrad(weights, [torch.zeros(3).double()], grads, 0.1, 1e-10)
    with pytest.raises(TypeError, match=r"expected \[3\]"):
        kernels.dense_sgd(weights, [], 0.1)


def test_an_update_is_seen_by_autograd(kernels):
    weight = torch.randn(4, requires_grad=True)
    out = (weight * weight).sum()
    with torch.no_grad():
        kernels.dense_sgd([weight], [torch.ones(4)], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.skipif(forced_reference(), reason="DLRM_KERNELS asks for plain torch alone")
def test_what_the_kernels_do_not_take_goes_to_the_reference(kernels):
    whole, half = torch.zeros(4, 4), torch.zeros(4, 4, dtype=BF16)
    assert dense_backend([whole, whole], [whole, half]) is cpu
    assert dense_backend([], []) is cpu
    for weight, grad in [(whole.double(), whole.double()), (whole.t()[:2], whole[:2]),
                         (whole, whole.double()), (whole[:2], whole.t()[:2]), (half, half),
                         (whole.to("meta"), whole.to("meta"))]:  # fmt: skip
        assert dense_backend([whole, weight], [whole, grad]) is reference
