"""LR against its equation, rewritten in plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import IdError
from dlrm.models.lr import LR, LRConfig
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

ROWS = [7, 5, 3]


def model(seed: int) -> LR:
    torch.manual_seed(seed)
    made = LR(4, EmbeddingCollection(ROWS, 1, ["a", "b", "c"])).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def bags(seed: int, samples: int, longest: int) -> tuple[Batch, list[list[list[int]]]]:
    rng = np.random.default_rng(seed)
    chosen = [
        [rng.integers(0, n, size=rng.integers(0, longest + 1)).tolist() for n in ROWS]
        for _ in range(samples)
    ]
    flat = [bag for sample in chosen for bag in sample]
    offsets = np.cumsum([0, *map(len, flat)])
    batch = Batch(
        torch.from_numpy(rng.normal(size=(samples, 4))),
        torch.tensor([i for bag in flat for i in bag], dtype=torch.int64),
        torch.from_numpy(rng.integers(0, 2, size=samples).astype(np.float64)),
        torch.from_numpy(offsets),
    )
    return batch, chosen


def expected(lr: LR, dense: torch.Tensor, chosen: list[list[list[int]]]) -> np.ndarray:
    assert lr.linear.bias is not None
    assert isinstance(lr.embeddings, EmbeddingCollection)
    weight, bias = lr.linear.weight.detach().numpy()[0], float(lr.linear.bias.detach())
    tables = [lr.embeddings.table(t).numpy()[:, 0] for t in range(len(ROWS))]
    return np.array(
        [
            bias + weight @ x + sum(tables[t][i] for t, bag in enumerate(sample) for i in bag)
            for x, sample in zip(dense.numpy(), chosen, strict=True)
        ]
    )


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 9), longest=st.integers(0, 4))
def test_is_its_equation_for_bags_of_any_length(seed: int, samples: int, longest: int) -> None:
    lr = model(seed)
    batch, chosen = bags(seed, samples, longest)
    np.testing.assert_allclose(
        lr(batch).detach().numpy(), expected(lr, batch.dense, chosen), rtol=1e-12, atol=1e-12
    )


def test_one_hot_is_a_bag_of_one() -> None:
    lr = model(0)
    ids = torch.tensor([[0, 4, 2], [6, 0, 1]])
    dense = torch.randn(2, 4, dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.float64)
    one_hot = lr(Batch(dense, ids, labels))
    bagged = lr(Batch(dense, ids.flatten(), labels, torch.arange(7)))
    torch.testing.assert_close(one_hot, bagged, rtol=1e-12, atol=1e-12)
    chosen = [[[i] for i in sample] for sample in ids.tolist()]
    np.testing.assert_allclose(one_hot.detach().numpy(), expected(lr, dense, chosen), rtol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    lr = model(1)
    batch, _ = bags(1, 5, 3)
    loss = torch.nn.functional.binary_cross_entropy_with_logits

    loss(lr(batch), batch.labels).backward()
    for name, parameter in lr.named_parameters():
        found = parameter.grad
        assert found is not None
        found = (found.to_dense() if found.is_sparse else found).flatten()
        values = parameter.detach().view(-1)
        for i in range(len(values)):
            kept, step, sides = values[i].item(), 1e-6, []
            for side in (kept + step, kept - step):
                values[i] = side
                with torch.no_grad():
                    sides.append(float(loss(lr(batch), batch.labels)))
            values[i] = kept
            assert found[i].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8), (
                name
            )


def test_starts_knowing_nothing() -> None:
    batch, _ = bags(2, 6, 3)
    fresh = LR(4, EmbeddingCollection(ROWS, 1)).double()
    assert fresh(batch).tolist() == [0.0] * 6


def test_config_builds_it_for_a_schema() -> None:
    schema = Schema(
        dense=tuple(DenseFeature(name=f"I{i}") for i in range(4)),
        categorical=tuple(CategoricalFeature(name=f"C{t}", rows=n) for t, n in enumerate(ROWS)),
    )
    lr = LRConfig().build(schema)
    assert sum(p.numel() for p in lr.parameters()) == sum(ROWS) + 4 + 1
    with pytest.raises(IdError, match="C1: id 5 is out of range"):
        lr(Batch(torch.zeros(1, 4), torch.tensor([[0, 5, 0]]), torch.zeros(1)))
