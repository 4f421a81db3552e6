"""The training step: what it computes, in which order, and what it leaves alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from dlrm import models
from dlrm.batch import Batch, Jagged
from dlrm.errors import IdError
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import build
from dlrm.schema import Feature, Schema
from dlrm.training.loss import LossConfig, loss_function
from dlrm.training.step import DENSE_UPDATE, LOSS, TABLE_UPDATE, TrainStep

SCHEMA = replace(
    (one_hot := Schema.one_hot(2, [5, 9], labels=("click", "like"))),
    features=(*one_hot.features, Feature(name="history", table="C1", kind="sequence")),
)
CONFIG = DLRMConfig(dim=4, bottom=(8,), top=(8,))


def batch_of(samples: int, seed: int = 0, *, weighted: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (samples,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Batch(
        torch.rand(samples, 2, generator=generator),
        torch.randint(0, 5, (samples, 2), generator=generator),
        torch.randint(0, 2, (samples, 2), generator=generator).float(),
        Jagged(torch.randint(0, 5, (int(lengths.sum()),), generator=generator), offsets),
        torch.rand(samples, generator=generator) if weighted else None,
    )


def step_of(lr: float = 0.1, **options) -> tuple[nn.Module, TrainStep]:
    torch.manual_seed(1)
    model = models.build(CONFIG, SCHEMA)
    optimizer = build("sgd", parameter_groups(model), lr)
    return model, TrainStep(model, optimizer, loss_function(LossConfig()), **options)


def values(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def gradients(batch: Batch) -> list[Tensor]:
    """Return what plain torch makes the gradient of each parameter."""
    model, _ = step_of()
    weights = torch.ones(len(batch)) if batch.weights is None else batch.weights
    loss = nn.functional.binary_cross_entropy_with_logits(
        model(batch), batch.labels, reduction="none"
    )
    (loss * weights[:, None]).mean().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [grad.to_dense() if grad.is_sparse else grad for grad in grads]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_gradient_descent(weighted):
    batch = batch_of(7, weighted=weighted)
    model, step = step_of()
    before = values(model)
    expected = model(batch).detach()
    step(batch)
    assert torch.equal(step.logits, expected)
    for old, new, grad in zip(before, values(model), gradients(batch), strict=True):
        torch.testing.assert_close(new, old - 0.1 * grad)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("most", [1e-3, 0.1, 1e6])
def test_all_gradients_together_are_no_longer_than_asked(most):
    batch = batch_of(20)
    norm = torch.cat([grad.flatten() for grad in gradients(batch)]).norm().item()
    model, step = step_of(clip=most)
    before = values(model)
    step(batch)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, values(model), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * min(norm, most), rel=1e-4)


def test_rates_follow_the_number_of_the_step():
    _, step = step_of(rate=lambda number: 1 / number, steps=3)
    rates = []
    for seed in range(3):
        step(batch_of(4, seed))
        rates.append(step.lr)
    assert rates == [1 / 4, 1 / 5, 1 / 6]


def test_parts_of_a_batch_add_up_to_its_loss():
    batch = batch_of(10)
    whole = step_of()[1](batch)
    cuts = (0, 3, 3, 10)
    shares = [
        step_of()[1](replace(batch.slice(first, last), parts=(3, 0, 7)))
        for first, last in pairwise(cuts)
    ]
    assert shares[1] == 0
    torch.testing.assert_close(sum(shares), whole)


def test_stages_are_told_in_their_order_and_change_nothing():
    told = []

    class Stage:
        def __init__(self, name: str):
            self.name = name

        def __enter__(self):
            told.append(self.name)

        def __exit__(self, *_):
            told.append(f"/{self.name}")

    model, step = step_of()
    other, plain = step_of()
    with step.observed(Stage):  # pyright: ignore[reportArgumentType]
        step(batch_of(6))
    step(batch_of(6, 1))
    for seed in range(2):
        plain(batch_of(6, seed))
    assert told == [
        name for stage in (LOSS, DENSE_UPDATE, TABLE_UPDATE) for name in (stage, f"/{stage}")
    ]
    for ours, theirs in zip(values(model), values(other), strict=True):
        assert torch.equal(ours, theirs)


def test_an_id_out_of_range_is_named_and_nothing_is_learned():
    model, step = step_of()
    before = values(model)
    wrong = batch_of(3)
    wrong.ids[1, 0] = 5
    with pytest.raises(IdError, match=r"C1: id 5 is out of range"):
        step(wrong)
    for old, new in zip(before, values(model), strict=True):
        assert torch.equal(old, new)
