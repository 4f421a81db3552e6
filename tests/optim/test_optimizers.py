"""Each optimizer against a dense oracle, with duplicate ids and several steps."""

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.optim import build
from dlrm.optim.config import OptimConfig


def rowwise_oracle(p: torch.Tensor, grads: list[torch.Tensor], lr: float) -> torch.Tensor:
    p, state = p.clone(), torch.zeros(p.shape[0], dtype=p.dtype)
    for g in grads:
        state += (g**2).mean(dim=1)
        p -= lr * g / (state.sqrt() + 1e-10)[:, None]
    return p


def dense_oracle(name: str, p: torch.Tensor, grads: list[torch.Tensor], lr: float) -> torch.Tensor:
    q = nn.Parameter(p.clone())
    oracle = torch.optim.SGD([q], lr) if name == "sgd" else torch.optim.Adagrad([q], lr)
    for g in grads:
        q.grad = g.clone()
        oracle.step()
    return q.detach()


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
def test_steps_equal_the_dense_oracle(name):
    torch.manual_seed(0)
    collection = EmbeddingCollection([6, 4], 3).double()
    dense = nn.Linear(3, 2).double()
    before = [p.detach().clone() for p in (collection.weight, dense.weight)]
    optimizer = build(name, [*collection.parameters(), *dense.parameters()], lr=0.2)
    grads: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.stack([torch.randint(0, n, (7,), generator=generator) for n in (6, 4)], 1)
        (dense(collection(ids)).sin() * torch.randn(7, 2, 2, generator=generator)).sum().backward()
        for kept, p in zip(grads, (collection.weight, dense.weight), strict=True):
            assert p.grad is not None
            kept.append(p.grad.to_dense().clone())
        optimizer.step()
        optimizer.zero_grad()
    if name == "rowwise_adagrad":
        expected = rowwise_oracle(before[0], grads[0], 0.2)
    else:
        expected = dense_oracle(name, before[0], grads[0], 0.2)
    torch.testing.assert_close(collection.weight.detach(), expected)
    torch.testing.assert_close(dense.weight.detach(), dense_oracle(name, before[1], grads[1], 0.2))


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
def test_rows_that_were_not_looked_up_stay_as_they_are(name):
    collection = EmbeddingCollection([1000], 4)
    before = collection.weight.detach().clone()
    optimizer = build(name, collection.parameters(), lr=1.0)
    collection(torch.tensor([[3], [3], [7]])).sum().backward()
    optimizer.step()
    changed = (collection.weight.detach() != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [3, 7]


def train(name: str, storage: Storage, steps: int) -> tuple[EmbeddingCollection, Optimizer]:
    torch.manual_seed(5)
    collection = EmbeddingCollection([30, 5], 8, storage=storage)
    # All start from the same numbers: those that bfloat16 can hold.
    collection.weight.data.copy_(collection.weight.detach().bfloat16())
    optimizer = build(name, collection.parameters(), lr=0.01)
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.stack([torch.randint(0, n, (9,), generator=generator) for n in (30, 5)], 1)
        factor = torch.randn(9, 2, 8, generator=generator)
        (collection(ids) * factor).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return collection, optimizer


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
def test_split_tables_train_as_float32_ones(name):
    full, _ = train(name, "fp32", 20)
    split, optimizer = train(name, "split", 20)
    upper = split.weight.detach().view(torch.int16).int() << 16
    lower = optimizer.state[split.weight]["lower"]
    assert lower.dtype == torch.int16
    assert torch.equal((upper | (lower.int() & 0xFFFF)).view(torch.float32), full.weight.detach())


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
def test_bfloat16_tables_follow_float32_ones_and_repeat_with_the_seed(name):
    full, _ = train(name, "fp32", 20)
    half, optimizer = train(name, "bf16", 20)
    again, _ = train(name, "bf16", 20)
    assert torch.equal(half.weight, again.weight)
    assert all(state.dtype == torch.float32 for state in optimizer.state[half.weight].values())
    # Each of at most 20 roundings is off by less than one unit of bfloat16, up or down at random.
    difference = half.weight.float() - full.weight
    unit = full.weight.abs().clamp(min=0.05) * 2**-7
    assert (difference.abs() <= 8 * unit).all()
    assert (difference / unit).mean().abs() < 0.3


def test_an_unknown_optimizer_lists_the_choices():
    with pytest.raises(ConfigError, match="sgd, adagrad, rowwise_adagrad"):
        build("sdg", [], lr=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "optim.lr is 0.0"),
        ({"lr": float("nan")}, "optim.lr is nan"),
        ({"warmup_steps": -1}, "optim.warmup_steps is -1"),
        ({"warmup_steps": 10, "decay_start": 5, "decay_steps": 3}, "optim.decay_start is 5"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**wrong)
