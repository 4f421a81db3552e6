"""MF against its equation in float64, on the two features that it takes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models.mf import MF, MFConfig
from dlrm.nn.embedding import EmbeddingCollection

from .float64 import array, check_gradients, draw_batch, draw_parameters, schema

PAIRS = [(0, 1), (2, 0), (1, 2)]


def make(pair: tuple[int, int], seed: int) -> MF:
    config = MFConfig(user=f"C{pair[0]}", item=f"C{pair[1]}", dim=3)
    model = config.build(schema()).double()
    draw_parameters(model, seed)
    return model


def bag(batch: Batch, b: int, t: int) -> list[int]:
    if batch.offsets is None:
        return [int(batch.ids[b, t])]
    g = b * 3 + t
    return batch.ids[batch.offsets[g] : batch.offsets[g + 1]].tolist()


def equation(model: MF, pair: tuple[int, int], batch: Batch) -> np.ndarray:
    assert isinstance(model.biases, EmbeddingCollection)
    assert isinstance(model.factors, EmbeddingCollection)
    user, item = (0, 1) if pair[0] < pair[1] else (1, 0)
    logits = []
    for b in range(len(batch)):
        logit, sides = array(model.bias)[0], []
        for t, table in zip(pair, (user, item), strict=True):
            biases, factors = (e.table(table).numpy() for e in (model.biases, model.factors))
            ids = bag(batch, b, t)
            logit += sum(biases[i][0] for i in ids)
            sides.append(sum((factors[i] for i in ids), np.zeros(3)))
        logits.append(logit + sides[0] @ sides[1])
    return np.array(logits)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    pair=st.sampled_from(PAIRS),
    longest=st.sampled_from([None, 1, 4]),
)
def test_is_its_equation(seed, pair, longest):
    model = make(pair, seed)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, pair, batch), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("longest", [None, 2])
def test_gradients_are_those_of_finite_differences(longest):
    check_gradients(make((2, 0), 3), draw_batch(3, 6, longest=longest))


def test_other_columns_are_ignored():
    model = make((2, 0), 1)
    batch = draw_batch(1, 4)
    ids = batch.ids.clone()
    ids[:, 1] = 10**6
    other = Batch(batch.dense * 7, ids, batch.labels)
    assert torch.equal(model(batch), model(other))


def test_an_id_out_of_range_names_its_column():
    model = make((2, 0), 1)
    with pytest.raises(IdError, match="C2: id 3 is out of range"):
        model(Batch(torch.zeros(1, 4), torch.tensor([[0, 0, 3]]), torch.zeros(1)))


def test_it_needs_two_ids():
    with pytest.raises(ConfigError, match=r'model.user is "user", .* choose one of: C0, C1, C2'):
        MFConfig().build(schema())
    with pytest.raises(ConfigError, match=r'model.item is "C9"'):
        MFConfig(user="C0", item="C9").build(schema())
    with pytest.raises(ConfigError, match="there is none"):
        MFConfig().build(schema(rows=()))
    with pytest.raises(ConfigError, match='both "C1"'):
        MFConfig(user="C1", item="C1")
    with pytest.raises(ConfigError, match=r"model\.dim is 0"):
        MFConfig(dim=0)


def test_columns_called_user_and_item_are_found():
    columns = schema().to_dict()
    columns["categorical"][2]["name"] = "user"
    columns["categorical"][1]["name"] = "item"
    model = MFConfig(dim=3).build(type(schema()).from_dict(columns))
    assert model.factors.names == ("item", "user")
    assert model.factors.rows == (5, 3)
