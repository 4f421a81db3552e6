"""FinalMLP against its equation in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.finalmlp import FinalMLP, FinalMLPConfig
from dlrm.nn.gate import Gate
from dlrm.nn.mlp import MLP

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

CONTEXTS = ((None, None), (0, 2), (1, None))


def make(seed: int, *, heads: int = 2, gate: int = 0, contexts=(None, None)) -> FinalMLP:
    model = FinalMLP(
        DENSE,
        embeddings(),
        first=(6, 4),
        second=(5, 3, 8),
        heads=heads,
        gate=gate,
        contexts=contexts,
    ).double()
    draw_parameters(model, seed)
    return model


def equation(model: FinalMLP, batch: Batch, heads: int) -> np.ndarray:
    fusion, logits = model.fusion, []
    for b in range(len(batch)):
        x = inputs(model.embeddings, batch, b)
        outputs = []
        for i, stream in enumerate(model.streams):
            seen = x
            if len(model.gates):
                gate, t = model.gates[i], model.contexts[i]
                assert isinstance(gate, Gate)
                if t is None:
                    context = array(gate.context)[0]
                else:
                    context = vectors(model.embeddings, batch, b)[t]
                seen = x * 2 / (1 + np.exp(-apply_mlp(gate.mlp, context)))
            assert isinstance(stream, MLP)
            outputs.append(apply_mlp(stream, seen))
        u, v = outputs
        weight, logit = array(fusion.weight), array(fusion.bias).item()
        logit += array(fusion.first) @ u + array(fusion.second) @ v
        n, k = len(u) // heads, len(v) // heads
        for head in range(heads):
            for p in range(n):
                for q in range(k):
                    logit += u[head * n + p] * weight[head, p, q] * v[head * k + q]
        logits.append(logit)
    return np.array(logits)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    heads=st.sampled_from([1, 2, 4]),
    gate=st.sampled_from([0, 3]),
    contexts=st.sampled_from(CONTEXTS),
    longest=st.sampled_from([None, 3]),
)
def test_is_its_equation(seed, heads, gate, contexts, longest):
    model = make(seed, heads=heads, gate=gate, contexts=contexts)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch, heads), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("gate", "contexts"), [(0, CONTEXTS[0]), *((3, c) for c in CONTEXTS)])
def test_gradients_are_those_of_finite_differences(gate, contexts):
    model = make(6, gate=gate, contexts=contexts)
    check_gradients(model, draw_batch(6, 6, longest=2))


def test_config_builds_it_for_a_schema():
    config = FinalMLPConfig(dim=3, first=(8, 6), second=(4,), heads=2, gate=5, contexts=("C2", ""))
    model = config.build(schema())
    assert model.contexts == (2, None)
    assert model.fusion.weight.shape == (2, 3, 2)
    first, second = model.gates
    assert [name for name, _ in first.named_parameters() if name == "context"] == []
    assert second.get_parameter("context").shape == (1, 3)


@pytest.mark.parametrize(("dense", "rows"), [(0, (7, 5, 3)), (4, (7,))])
def test_no_dense_feature_or_one_categorical_is_enough(dense, rows):
    model = FinalMLPConfig(dim=3, gate=4).build(schema(dense, rows))
    batch = Batch(torch.ones(2, dense), torch.zeros(2, len(rows), dtype=torch.int64), torch.ones(2))
    assert model(batch).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "model.dim is 0"),
        ({"first": ()}, "model.first is"),
        ({"second": (4, 0)}, "model.second is"),
        ({"heads": 0}, "model.heads is 0"),
        ({"heads": 3}, "model.heads is 3: it must divide the last size of model.first, 256"),
        ({"gate": -1}, "model.gate is -1"),
        ({"contexts": ("C1", "")}, "model.gate 0: no gates"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        FinalMLPConfig(**wrong)


def test_a_context_that_is_no_feature_lists_the_features():
    with pytest.raises(ConfigError, match='"user"; choose one of: C0, C1, C2'):
        FinalMLPConfig(gate=4, contexts=("user", "")).build(schema())
