"""DLRM against its equation, rewritten in plain float64 numpy."""

import numpy as np
import pytest
import torch

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

ROWS = [7, 5, 3]


def batch(seed: int, samples: int, *, bags: bool) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (samples,), generator=generator).double()
    if not bags:
        ids = torch.stack([torch.randint(0, n, (samples,), generator=generator) for n in ROWS], 1)
        return Batch(dense, ids, labels)
    lengths = torch.randint(0, 4, (samples * len(ROWS),), generator=generator)
    ids = torch.cat(
        [
            torch.randint(0, ROWS[g % 3], (int(n),), generator=generator)
            for g, n in enumerate(lengths)
        ]
    )
    return Batch(
        dense, ids, labels, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    )


def mlp(layers: MLP, x: np.ndarray, *, relu_last: bool) -> np.ndarray:
    linears = layers.linears()
    for i, layer in enumerate(linears):
        x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
        if relu_last or i < len(linears) - 1:
            x = np.maximum(x, 0)
    return x


def equation(model: DLRM, data: Batch, interaction: str, self_interaction: bool) -> np.ndarray:
    tables = model.embeddings
    assert isinstance(tables, EmbeddingCollection)
    logits = []
    for b in range(len(data)):
        x = mlp(model.bottom, data.dense[b].numpy(), relu_last=True)
        vectors = [x]
        for t in range(len(ROWS)):
            if data.offsets is None:
                bag = [int(data.ids[b, t])]
            else:
                g = b * len(ROWS) + t
                bag = data.ids[data.offsets[g] : data.offsets[g + 1]].tolist()
            table = tables.table(t).numpy()
            vectors.append(sum((table[i] for i in bag), np.zeros(table.shape[1])))
        if interaction == "dot":
            pairs = [
                vectors[i] @ vectors[j]
                for i in range(len(vectors))
                for j in range(i + self_interaction)
            ]
            z = np.concatenate([x, pairs])
        elif interaction == "cat":
            z = np.concatenate(vectors)
        elif interaction == "projection":
            p = model.interaction.get_parameter("weight").detach().numpy() @ np.array(vectors)
            z = np.concatenate([x, [v @ p_j for v in vectors for p_j in p]])
        else:
            z = np.sum(vectors, axis=0)
        logits.append(mlp(model.top, z, relu_last=False)[0])
    return np.array(logits)


@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize(
    ("interaction", "self_interaction"),
    [("dot", False), ("dot", True), ("cat", False), ("sum", False), ("projection", False)],
)
def test_logits_equal_the_equation(interaction, self_interaction, bags):
    torch.manual_seed(1)
    model = DLRM(
        4,
        EmbeddingCollection(ROWS, 3),
        bottom=(6, 5),
        top=(8,),
        interaction=interaction,
        self_interaction=self_interaction,
        projection=2,
    ).double()
    data = batch(2, 9, bags=bags)
    expected = equation(model, data, interaction, self_interaction)
    np.testing.assert_allclose(model(data).detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("interaction", ["dot", "cat", "sum", "projection"])
def test_gradients_equal_finite_differences(interaction):
    torch.manual_seed(3)
    model = DLRM(
        4, EmbeddingCollection(ROWS, 2), bottom=(3,), top=(4,), interaction=interaction
    ).double()
    data = batch(4, 5, bags=True)
    model(data).sum().backward()
    step = 1e-6
    for parameter in model.parameters():
        assert parameter.grad is not None
        grad = parameter.grad.to_dense().flatten()
        flat = parameter.detach().view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 7)):
            kept = flat[i].item()
            flat[i] = kept + step
            up = model(data).sum().item()
            flat[i] = kept - step
            down = model(data).sum().item()
            flat[i] = kept
            assert grad[i].item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_config_builds_the_model_of_a_schema():
    schema = Schema(
        dense=tuple(DenseFeature(name=f"I{i}") for i in range(4)),
        categorical=tuple(CategoricalFeature(name=f"C{i}", rows=n) for i, n in enumerate(ROWS)),
    )
    model = DLRMConfig(dim=3, bottom=(6,), top=(8, 2)).build(schema)
    assert [tuple(layer.weight.shape) for layer in model.bottom.linears()] == [(6, 4), (3, 6)]
    width = 3 + 4 * 3 // 2
    shapes = [tuple(layer.weight.shape) for layer in model.top.linears()]
    assert shapes == [(8, width), (2, 8), (1, 2)]
    assert model.embeddings.names == ("C0", "C1", "C2")


@pytest.mark.parametrize("batch_norm", [False, True])
def test_without_dense_features_a_learnt_vector_takes_their_place(batch_norm):
    torch.manual_seed(5)
    model = DLRM(
        0,
        EmbeddingCollection(ROWS, 3),
        bottom=(6, 5),
        top=(8,),
        dropout=0.5 if batch_norm else 0.0,
        batch_norm=batch_norm,
    ).double()
    (vector,) = model.bottom.linears()
    torch.nn.init.constant_(vector.bias, -0.5)
    data = batch(6, 9, bags=False)
    data = Batch(data.dense[:, :0], data.ids, data.labels)
    x = model.bottom(data.dense)
    assert torch.equal(x, torch.full((9, 3), -0.5, dtype=torch.float64))
    model(data).sum().backward()
    assert vector.bias.grad is not None
    # No part of it is dead, also below 0.
    assert torch.all(vector.bias.grad != 0)


def test_a_wrong_interaction_lists_the_choices():
    with pytest.raises(ConfigError, match=r'"dott"; choose one of: dot, cat, sum, projection'):
        DLRM(4, EmbeddingCollection(ROWS, 3), bottom=(), top=(), interaction="dott")


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"projection": 0}, {"bottom": (4, 0)}, {"top": (-1,)}]
)
def test_sizes_must_be_positive(wrong):
    with pytest.raises(ConfigError, match="must be positive"):
        DLRMConfig(**wrong)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_a_share(dropout):
    with pytest.raises(ConfigError, match=f"dropout is {dropout}"):
        DLRMConfig(dropout=dropout)
