"""Each optimizer against a dense oracle, with duplicate ids and several steps."""

import pytest
import torch
from torch import Tensor, nn

from dlrm.ops import dense_backend
from dlrm.optim import OPTIMIZERS, RowScope, build

from .tables import backward, net

TORCH = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
EPS = {"sgd": 0.0, "adagrad": 1e-10, "rowwise_adagrad": 1e-10, "adam": 1e-8}


def oracle(
    name: str, w: Tensor, grads: list[Tensor], parts: list[Tensor], lr: float, l2: float = 0.0
) -> Tensor:
    """Steps on a whole (R, D) table, of which only the rows of `parts` (R,) take part."""
    w, mean, square = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    for t, grad in enumerate(grads, start=1):
        part = parts[t - 1][:, None]
        g = grad + l2 * w
        if name == "sgd":
            step = g
        elif name == "adam":
            mean = torch.where(part, 0.9 * mean + 0.1 * g, mean)
            square = torch.where(part, 0.999 * square + 0.001 * g**2, square)
            step = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + EPS[name])
        else:
            more = g**2 if name == "adagrad" else (g**2).mean(dim=1, keepdim=True)
            square = torch.where(part, square + more, square)
            step = g / (square.sqrt() + EPS[name])
        w = torch.where(part, w - lr * step, w)
    return w


def torch_oracle(name: str, w: Tensor, grads: list[Tensor], lr: float, l2: float = 0.0) -> Tensor:
    """The same steps of torch's own optimizer, with a dense gradient."""
    q = nn.Parameter(w.clone())
    # Row-wise Adagrad is Adagrad in dense parameters.
    optimizer = TORCH.get(name, torch.optim.Adagrad)([q], lr=lr, weight_decay=l2)
    for g in grads:
        q.grad = g.clone()
        optimizer.step()
    return q.detach()


@pytest.mark.parametrize("rows", ["touched", "all"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_the_dense_oracle(name, dtype, l2, rows: RowScope):
    model = net(dtype=dtype)
    before = [p.double() for p in model.numbers()]
    options = {"weight_decay": l2 / 2, "embedding_l2": l2, "embedding_rows": rows}
    optimizer = build(name, model.groups(), 0.2, **options)
    grads: list[list[Tensor]] = [[], [], []]
    parts: list[Tensor] = []
    for step in range(5):
        # Twice, so that gradients accumulate.
        looked_up = torch.cat([backward(model, 2 * step), backward(model, 2 * step + 1)])
        for kept, p in zip(grads, (model.weight, *model.layer.parameters()), strict=True):
            assert p.grad is not None
            kept.append(p.grad.to_dense().clone().double())
        parts.append(torch.zeros(10, dtype=torch.bool))
        parts[-1][looked_up] = True
        optimizer.step()
        optimizer.zero_grad()
    assert not all(part.all() for part in parts)
    if rows == "all":
        parts = [torch.ones_like(part) for part in parts]
    rtol, atol = (1e-9, 1e-9) if dtype == torch.float64 else (1e-3, 1e-4)
    expected = oracle(name, before[0], grads[0], parts, 0.2, l2)
    numbers = [p.double() for p in model.numbers()]
    torch.testing.assert_close(numbers[0], expected, rtol=rtol, atol=atol)
    if rows == "all" and name in TORCH:
        with_torch = torch_oracle(name, before[0], grads[0], 0.2, l2)
        torch.testing.assert_close(with_torch, expected, rtol=1e-9, atol=1e-9)
    for number, start, steps in zip(numbers[1:], before[1:], grads[1:], strict=True):
        expected = torch_oracle(name, start, steps, 0.2, l2 / 2)
        torch.testing.assert_close(number, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_in_bfloat16_take_the_kernels_of_float32_ones(name):
    half = nn.Parameter(torch.randn(4, 3))
    assert dense_backend([half], [half.detach().bfloat16()]) is dense_backend([half], [half])
