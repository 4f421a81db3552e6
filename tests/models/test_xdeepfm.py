"""xDeepFM against its equation, all pairs written out in float64, and a case by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.xdeepfm import XDeepFM, XDeepFMConfig
from dlrm.nn.embedding import EmbeddingCollection

from .float64 import (
    DENSE,
    DIM,
    ROWS,
    apply_mlp,
    array,
    check_gradients,
    draw_batch,
    draw_parameters,
    embeddings,
    inputs,
    schema,
    vectors,
)


def make(cin: tuple[int, ...], seed: int) -> XDeepFM:
    model = XDeepFM(DENSE, embeddings(1), embeddings(), cin=cin, deep=(6, 5)).double()
    draw_parameters(model, seed)
    return model


def equation(model: XDeepFM, batch: Batch) -> np.ndarray:
    weights = [*map(array, model.cin.weights), array(model.cin.last.weight)]
    logits = []
    for b in range(len(batch)):
        x0 = x = vectors(model.embeddings, batch, b)
        sums = []
        for weight in weights:
            w = weight.reshape(len(weight), len(x0), len(x))
            x = [
                sum((w[h, j, i] * x[i] * x0[j] for i in range(len(x)) for j in range(len(x0))),
                    np.zeros(DIM))
                for h in range(len(weight))
            ]  # fmt: skip
            sums += [vector.sum() for vector in x]
        linear = model.linear.linear
        logits.append(
            array(linear.weight)[0] @ batch.dense[b].numpy()
            + array(linear.bias)[0]
            + sum(vector[0] for vector in vectors(model.linear.embeddings, batch, b))
            + array(model.last.weight)[0] @ np.array(sums)
            + apply_mlp(model.deep, inputs(model.embeddings, batch, b))[0]
        )
    return np.array(logits)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    cin=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    longest=st.sampled_from([None, 3]),
)
def test_is_its_equation(seed, cin, longest):
    model = make(tuple(cin), seed)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch), rtol=1e-9, atol=1e-9
    )


def test_a_case_by_hand():
    # Two tables of one row: e_1 = (1, 2), e_2 = (3, -1).
    model = XDeepFM(
        1, EmbeddingCollection([1, 1], 1), EmbeddingCollection([1, 1], 2), cin=(1, 1), deep=()
    )
    with torch.no_grad():
        model.embeddings.get_parameter("weight").copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        model.linear.embeddings.get_parameter("weight").copy_(torch.tensor([[0.5], [0.25]]))
        model.linear.linear.weight.fill_(2)
        model.cin.weights[0].copy_(torch.tensor([[1.0, 2.0, 0.0, 1.0]]))
        model.cin.last.weight.copy_(torch.tensor([[1.0, -1.0]]))
        model.last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.deep.linears()[0].weight.fill_(0)
        model.deep.linears()[0].bias.fill_(100)
    # X^1 = e_1 * e_1 + 2 e_1 * e_2 + e_2 * e_2 = (1, 4) + (6, -4) + (9, 1) = (16, 1)
    # X^2 = X^1 * e_1 - X^1 * e_2 = (16, 2) - (48, -1) = (-32, 3)
    # logit = 2 * 5 + 0.5 + 0.25 + (17 - 290) + 100
    batch = Batch(torch.tensor([[5.0]]), torch.tensor([[0, 0]]), torch.zeros(1))
    assert model(batch).item() == -162.25


@pytest.mark.parametrize("cin", [(4,), (3, 2), (2, 3, 2)])
def test_gradients_are_those_of_finite_differences(cin):
    check_gradients(make(cin, seed=5), draw_batch(5, 6, longest=2))


def test_config_builds_it_for_a_schema():
    model = XDeepFMConfig(dim=3, cin=(5, 4), deep=(8,)).build(schema())
    assert model.embeddings.rows == ROWS
    assert model.linear.embeddings.dim == 1
    assert [tuple(p.shape) for p in model.cin.parameters()] == [(5, 9), (4, 15)]
    assert model.last.weight.shape == (1, 9)


def test_one_categorical_feature_is_enough_and_none_is_not():
    model = XDeepFMConfig(dim=3, deep=(8,)).build(schema(rows=(7,)))
    batch = Batch(torch.ones(2, 4), torch.zeros(2, 1, dtype=torch.int64), torch.ones(2))
    assert model(batch).isfinite().all()
    with pytest.raises(ConfigError, match="categorical features, and the data have none"):
        XDeepFMConfig().build(schema(rows=()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "model.dim is 0"),
        ({"cin": ()}, "take deepfm"),
        ({"cin": (4, 0)}, "model.cin is"),
        ({"deep": (-1,)}, "model.deep is"),
        ({"dropout": 1.5}, "model.dropout is 1.5"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        XDeepFMConfig(**wrong)
