"""L2 and steps of every row, in the kernels and in plain torch, by formulas written out here."""

import pytest
import torch
from torch import Tensor

from dlrm.ops import reference

from .draws import Draw, assert_same_bits_on_threads, dims, draw

UPDATES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
LR, EPS, STEP, BETA1, BETA2 = 0.1, 1e-3, 3, 0.8, 0.9


def fresh_state(name: str, d: Draw) -> list[Tensor]:
    rows, dim = d.weight.shape
    shapes = {"sgd": [], "rowwise_adagrad": [(rows,)], "adam": [(rows, 2, dim)]}
    return [d.state(*shape) for shape in shapes.get(name, [(rows, dim)])]


def formula(
    name: str, w: Tensor, state: list[Tensor], d: Draw, l2: float, every_row: bool
) -> tuple[Tensor, list[Tensor]]:
    """The step in float64, on whole tables: rows that take no part are put back."""
    w, s = w.double(), [tensor.double() for tensor in state]
    g = torch.zeros_like(w)
    for row, grad in zip(d.rows.tolist(), d.grad.double(), strict=True):
        g[row] += grad
    takes_part = torch.full((w.shape[0],), every_row)
    takes_part[d.rows] = True
    g = g + l2 * w
    new: list[Tensor] = []
    if name == "sgd":
        moved = w - LR * g
    elif name == "adam":
        m = BETA1 * s[0][:, 0] + (1 - BETA1) * g
        v = BETA2 * s[0][:, 1] + (1 - BETA2) * g**2
        corrected = (v / (1 - BETA2**STEP)).sqrt() + EPS
        moved = w - LR * (m / (1 - BETA1**STEP)) / corrected
        new = [torch.stack([m, v], dim=1)]
    else:
        new = [s[0] + ((g**2).mean(1) if name == "rowwise_adagrad" else g**2)]
        root = new[0].sqrt() + EPS
        moved = w - LR * g / (root[:, None] if name == "rowwise_adagrad" else root)

    def of_rows(after: Tensor, before: Tensor) -> Tensor:
        return torch.where(takes_part.view(-1, *[1] * (after.dim() - 1)), after, before)

    return of_rows(moved, w), [of_rows(a, b) for a, b in zip(new, s, strict=True)]


def apply(module, name: str, weight: Tensor, state: list[Tensor], d: Draw, **options) -> None:
    update = getattr(module, f"{name}_update")
    if name == "adam":
        options |= {"step": STEP, "beta1": BETA1, "beta2": BETA2, "eps": EPS}
    rest = (EPS,) if "adagrad" in name else ()
    update(weight, *state, d.rows, d.grad.to(weight.dtype if weight.dtype == torch.float64 else
           torch.float32), LR, *rest, **options)  # fmt: skip


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("every_row", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.7])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_equal_their_formula(kernels, name, l2, every_row):
    for dim in (*dims(len(name), 3), 0):
        rows = 40 if dim else 1
        d = draw(dim, dim or 3, rows=rows, count=300 if dim else 0)
        state = fresh_state(name, d)
        expected, expected_state = formula(name, d.weight, state, d, l2, every_row)
        for module in (kernels, reference):
            weight, mine = d.weight.clone(), [s.clone() for s in state]
            apply(module, name, weight, mine, d, l2=l2, every_row=every_row)
            close(weight, expected)
            for ours, theirs in zip(mine, expected_state, strict=True):
                close(ours, theirs)


@pytest.mark.parametrize("every_row", [False, True])
@pytest.mark.parametrize("name", UPDATES)
def test_every_storage_has_the_same_l2(kernels, name, every_row):
    for module in (kernels, reference):
        for storage in ("bf16", "split"):
            d = draw(3, 20, rows=70, count=60)
            upper = d.weight.bfloat16()
            state = fresh_state(name, d)
            expected, _ = formula(name, upper, state, d, 0.7, every_row)
            lower = torch.zeros_like(upper, dtype=torch.int16) if storage == "split" else None
            apply(module, name, upper, state, d, l2=0.7, every_row=every_row, lower=lower, seed=4)
            if lower is None:
                # Rounded by less than one unit.
                assert ((upper.double() - expected).abs() <= expected.abs() * 2**-7 + 1e-4).all()
            else:
                bits = (upper.view(torch.int16).int() << 16) | (lower.int() & 0xFFFF)
                close(bits.view(torch.float32), expected)


@pytest.mark.parametrize("name", UPDATES)
def test_any_number_of_threads_gives_the_same_bits(kernels, name):
    for every_row in (False, True):
        d = draw(6, 48, rows=400, count=2000)
        state = fresh_state(name, d)

        def updated(d: Draw = d, state: list[Tensor] = state, every_row: bool = every_row):
            weight, mine = d.weight.clone(), [s.clone() for s in state]
            apply(kernels, name, weight, mine, d, l2=0.1, every_row=every_row)
            return [weight, *mine]

        assert_same_bits_on_threads(updated)
