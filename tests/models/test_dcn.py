"""DCN against its equation, layer after layer in float64, and a case by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models import another
from dlrm.models.dcn import DCN, DCNConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.tables import TablesConfig

from .float64 import (
    DENSE,
    apply_mlp,
    array,
    check_gradients,
    draw_batch,
    draw_parameters,
    embeddings,
    inputs,
    schema,
)


def make(cross_layers: int, seed: int) -> DCN:
    model = DCN(DENSE, embeddings(), cross_layers=cross_layers, deep=(6, 5)).double()
    draw_parameters(model, seed)
    return model


def equation(model: DCN, batch: Batch) -> np.ndarray:
    weight, bias = array(model.cross.weight), array(model.cross.bias)
    logits = []
    for b in range(len(batch)):
        x0 = x = inputs(model.embeddings, batch, b)
        for w_l, b_l in zip(weight, bias, strict=True):
            x = x0 * (w_l @ x) + b_l + x
        logits.append(array(model.last.weight)[0] @ x + apply_mlp(model.deep, x0)[0])
    return np.array(logits)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 6),
    longest=st.sampled_from([None, 0, 1, 3]),
    samples=st.integers(1, 7),
)
def test_is_its_equation(seed, layers, longest, samples):
    model = make(layers, seed)
    batch = draw_batch(seed, samples, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch), rtol=1e-9, atol=1e-9
    )


def test_a_case_by_hand():
    # x_0 = (2, 1): a dense feature, and the embedding of dimension 1 of the only id.
    model = DCN(1, EmbeddingCollection([1], 1), cross_layers=2, deep=())
    with torch.no_grad():
        model.embeddings.get_parameter("weight").fill_(1)
        model.cross.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
        model.cross.bias.copy_(torch.tensor([[1.0, 0.0], [0.0, -3.0]]))
        model.last.weight.copy_(torch.tensor([[10.0, 1.0]]))
        model.deep.linears()[0].weight.copy_(torch.tensor([[0.25, 0.5]]))
        model.deep.linears()[0].bias.fill_(7)
    # x_1 = (2, 1) (2 - 1) + (1, 0) + (2, 1) = (5, 2)
    # x_2 = (2, 1) (2.5 + 4) + (0, -3) + (5, 2) = (18, 5.5)
    # logit = 180 + 5.5 + (0.5 + 0.5 + 7)
    batch = Batch(torch.tensor([[2.0]]), torch.tensor([[0]]), torch.zeros(1))
    assert model(batch).item() == 193.5


def test_gradients_are_those_of_finite_differences():
    check_gradients(make(3, seed=5), draw_batch(5, 6, longest=2))


def test_config_builds_it_for_a_schema():
    model = DCNConfig(dim=3, cross_layers=2, deep=(8,)).build(schema())
    assert model.cross.weight.shape == (2, 13)
    assert [tuple(layer.weight.shape) for layer in model.deep.linears()] == [(8, 13), (1, 8)]
    # Rows start small for any size of table.
    assert float(model.embeddings.get_parameter("weight").detach().abs().max()) < 0.1


@pytest.mark.parametrize(("dense", "rows"), [(0, (7, 5, 3)), (4, (7,))])
def test_no_dense_feature_or_one_categorical_is_enough(dense, rows):
    model = DCNConfig(dim=3, deep=(8,)).build(schema(dense, rows))
    batch = Batch(torch.ones(2, dense), torch.zeros(2, len(rows), dtype=torch.int64), torch.ones(2))
    assert model(batch).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "model.dim is 0"),
        ({"cross_layers": 0}, "model.cross_layers is 0"),
        ({"deep": (4, 0)}, "must be positive"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DCNConfig(**wrong)


def test_taken_into_a_recipe_it_keeps_the_sizes_but_starts_from_its_own_rows():
    config = another(DLRMConfig(dim=8, top=(32, 16)), "dcn")
    assert config == DCNConfig(dim=8, deep=(32, 16))
    chosen = TablesConfig(storage="bf16")
    assert another(DLRMConfig(tables=chosen), "dcn").tables == chosen
