"""DCN-V2 against its equation in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.dcnv2 import DCNV2, DCNV2Config, Structure
from dlrm.nn.embedding import EmbeddingCollection

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

STRUCTURES = ("parallel", "stacked")


def make(seed: int, *, layers: int = 2, rank: int = 0, structure: Structure = "parallel") -> DCNV2:
    model = DCNV2(
        DENSE, embeddings(), cross_layers=layers, rank=rank, structure=structure, deep=(6, 5)
    ).double()
    draw_parameters(model, seed)
    return model


def matrices(model: DCNV2, rank: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """W_l and b_l of each layer, multiplied out."""
    found = []
    for layer in model.cross.layers:
        if rank:
            v, u, b = (array(p) for p in layer.parameters())
            found.append((u @ v, b))
        else:
            w, b = (array(p) for p in layer.parameters())
            found.append((w, b))
    return found


def equation(model: DCNV2, batch: Batch, rank: int) -> np.ndarray:
    logits = []
    for b in range(len(batch)):
        x0 = x = inputs(model.embeddings, batch, b)
        for w_l, b_l in matrices(model, rank):
            x = np.array(
                [x0[i] * (sum(w_l[i, k] * x[k] for k in range(len(x))) + b_l[i]) + x[i]
                 for i in range(len(x))]
            )  # fmt: skip
        if model.last is None:
            logits.append(apply_mlp(model.deep, x)[0])
        else:
            logits.append(array(model.last.weight)[0] @ x + apply_mlp(model.deep, x0)[0])
    return np.array(logits)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 4),
    rank=st.sampled_from([0, 1, 4]),
    structure=st.sampled_from(STRUCTURES),
    longest=st.sampled_from([None, 3]),
)
def test_is_its_equation(seed, layers, rank, structure, longest):
    model = make(seed, layers=layers, rank=rank, structure=structure)
    batch = draw_batch(seed, 5, longest=longest)
    np.testing.assert_allclose(
        model(batch).detach().numpy(), equation(model, batch, rank), rtol=1e-9, atol=1e-9
    )


def test_a_case_by_hand():
    model = DCNV2(1, EmbeddingCollection([1], 1), cross_layers=1, structure="stacked", deep=())
    with torch.no_grad():
        model.embeddings.get_parameter("weight").fill_(3)
        w, b = model.cross.layers[0].parameters()
        w.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        b.copy_(torch.tensor([0.5, 1.0]))
        model.deep.linears()[0].weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.deep.linears()[0].bias.fill_(0)
    # x_0 = (2, 3), W x_0 + b = (8.5, -2), x_1 = (17, -6) + (2, 3) = (19, -3)
    batch = Batch(torch.tensor([[2.0]]), torch.tensor([[0]]), torch.zeros(1))
    assert model(batch).item() == -11


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("rank", [0, 2])
def test_gradients_are_those_of_finite_differences(rank, structure):
    check_gradients(make(5, rank=rank, structure=structure), draw_batch(5, 6, longest=2))


def test_config_builds_it_for_a_schema():
    model = DCNV2Config(dim=3, cross_layers=2, rank=4, structure="stacked", deep=(8,)).build(
        schema()
    )
    shapes = [tuple(p.shape) for p in model.cross.parameters()]
    assert shapes == [(4, 13), (13, 4), (13,)] * 2
    assert model.last is None


@pytest.mark.parametrize(("dense", "rows"), [(0, (7, 5, 3)), (4, (7,))])
def test_no_dense_feature_or_one_categorical_is_enough(dense, rows):
    model = DCNV2Config(dim=3, deep=(8,)).build(schema(dense, rows))
    batch = Batch(torch.ones(2, dense), torch.zeros(2, len(rows), dtype=torch.int64), torch.ones(2))
    assert model(batch).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "model.dim is 0"),
        ({"cross_layers": -1}, "model.cross_layers is -1"),
        ({"rank": -1}, "model.rank is -1"),
        ({"structure": "beside"}, 'unknown structure "beside"; choose one of: parallel, stacked'),
        ({"deep": (0,)}, "must be positive"),
        ({"dropout": -0.1}, "model.dropout is -0.1"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DCNV2Config(**wrong)
