"""DeepFM against its equation, all pairs written out in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.deepfm import DeepFM, DeepFMConfig

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
    vectors,
)


def make(seed: int) -> DeepFM:
    model = DeepFM(DENSE, embeddings(1), embeddings(), deep=(6, 5)).double()
    draw_parameters(model, seed)
    return model


def equation(model: DeepFM, batch: Batch) -> np.ndarray:
    logits = []
    for b in range(len(batch)):
        x = batch.dense[b].numpy()
        linear = model.linear.linear
        logit = array(linear.bias)[0] + array(linear.weight)[0] @ x
        logit += sum(vector[0] for vector in vectors(model.linear.embeddings, batch, b))
        every = [x[i] * array(model.pairs.vectors)[i] for i in range(len(x))]
        every += vectors(model.embeddings, batch, b)
        logit += sum(every[i] @ every[j] for i in range(len(every)) for j in range(i))
        logits.append(logit + apply_mlp(model.deep, inputs(model.embeddings, batch, b))[0])
    return np.array(logits)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), longest=st.sampled_from([None, 1, 4]))
def test_is_its_equation(seed, longest):
    model = make(seed)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("longest", [None, 2])
def test_gradients_are_those_of_finite_differences(longest):
    check_gradients(make(3), draw_batch(3, 6, longest=longest))


def test_config_builds_it_for_a_schema():
    model = DeepFMConfig(dim=3, deep=(8,)).build(schema())
    assert [tuple(layer.weight.shape) for layer in model.deep.linears()] == [(8, 13), (1, 8)]
    assert model.linear.embeddings.dim == 1


def test_dropout_and_batch_norm_reach_the_mlp():
    torch.manual_seed(0)
    model = DeepFMConfig(dim=3, deep=(8,), dropout=0.5, batch_norm=True).build(schema())
    batch = draw_batch(0, 6)
    batch = Batch(batch.dense.float(), batch.ids, batch.labels.float())
    assert not torch.equal(model(batch), model(batch))
    assert any("running_mean" in name for name in model.state_dict())
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "model.dim is 0"),
        ({"deep": (-1,)}, "model.deep is"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DeepFMConfig(**wrong)
