"""FinalMLP against its equation in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.finalmlp import FinalMLP, FinalMLPConfig
from dlrm.nn.fusion import Gate
from dlrm.nn.mlp import MLP
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    apply_mlp,
    array,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    inputs,
    make_schema,
    vectors,
)

CONTEXTS = (("", ""), ("C0", "C2"), ("C1", ""))


def make(
    schema: Schema, seed: int, *, heads: int = 2, gate: int = 0, contexts=("", "")
) -> FinalMLP:
    config = FinalMLPConfig(
        dim=3,
        first=(6, 4),
        second=(5, 3, 8),
        heads=heads,
        gate=gate,
        contexts=contexts if gate else ("", ""),
    )
    return draw_parameters(config.build(schema), seed)


def equation(model: FinalMLP, schema: Schema, batch: Batch, heads: int) -> list[np.ndarray]:
    fusion, labels, logits = model.fusion, schema.num_labels, []
    for b in range(len(batch)):
        x = inputs(model.embeddings, schema, batch, b)
        outputs = []
        for i, stream in enumerate(model.streams):
            seen = x
            if len(model.gates):
                gate, t = model.gates[i], model.contexts[i]
                assert isinstance(gate, Gate)
                if t is None:
                    context = array(gate.context)[0]
                else:
                    context = vectors(model.embeddings, schema, batch, b)[t]
                seen = x * 2 / (1 + np.exp(-apply_mlp(gate.mlp, context)))
            assert isinstance(stream, MLP)
            outputs.append(apply_mlp(stream, seen))
        u, v = outputs
        logit = array(fusion.bias) + array(fusion.first) @ u + array(fusion.second) @ v
        n, k = len(u) // heads, len(v) // heads
        weight = array(fusion.weight).reshape(labels, heads, n, k)
        for y in range(labels):
            for head in range(heads):
                for p in range(n):
                    for q in range(k):
                        logit[y] += u[head * n + p] * weight[y, head, p, q] * v[head * k + q]
        logits.append(logit)
    return logits


@settings(deadline=None, max_examples=30)
@given(
    seed=SEEDS,
    heads=st.sampled_from([1, 2, 4]),
    gate=st.sampled_from([0, 3]),
    contexts=st.sampled_from(CONTEXTS),
    **SCHEMAS,
)
def test_is_its_equation(seed, heads, gate, contexts, ids, labels):
    schema = make_schema(ids, labels)
    model = make(schema, seed, heads=heads, gate=gate, contexts=contexts)
    batch = draw_batch(schema, seed, 5)
    assert_logits(model, batch, equation(model, schema, batch, heads))


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize(("gate", "contexts"), [(0, CONTEXTS[0]), *((3, c) for c in CONTEXTS)])
def test_gradients_are_those_of_finite_differences(gate, contexts, labels):
    schema = make_schema("mixed", labels)
    check_gradients(make(schema, 6, gate=gate, contexts=contexts), draw_batch(schema, 6, 6))


def test_config_builds_it_for_a_schema():
    config = FinalMLPConfig(dim=3, first=(8, 6), second=(4,), heads=2, gate=5, contexts=("C2", ""))
    model = config.build(make_schema())
    assert model.contexts == [2, None]
    assert model.fusion.weight.shape == (2, 3, 2)
    first, second = model.gates
    assert [name for name, _ in first.named_parameters() if name == "context"] == []
    assert second.get_parameter("context").shape == (1, 3)


def test_a_context_that_is_no_feature_lists_the_features():
    with pytest.raises(ConfigError, match='"user"; choose one of: C0, C1, C2'):
        FinalMLPConfig(gate=4, contexts=("user", "")).build(make_schema())
