"""Every model of the catalogue in JAX against PyTorch: one batch, the same logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import trained
from torch import nn

from batches import draw, history_schema
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS
from dlrm.nn.mlp import MLP
from dlrm.nn.quantized import quantize
from dlrm.nn.tables import TablesConfig
from dlrm.runtimes.runtime import Options, find
from dlrm.schema import Schema
from dlrm.training.ensemble import Ensemble

pytest.importorskip("jax")

import jax
import jax.numpy as jnp

from dlrm.runtimes.jax import layers
from dlrm.runtimes.jax.feed import Feed
from dlrm.runtimes.jax.inference import JaxModel

LABELS = ("click", "buy")
HISTORY = history_schema(labels=LABELS)
PIECEWISE = replace(
    HISTORY,
    dense=tuple(replace(f, bins=n) for f, n in zip(HISTORY.dense, (5, 0, 2), strict=True)),
)
IDS = Schema.one_hot(3, [300, 7, 120, 2], ["user", "C1", "item", "C2"])

OPTIONS: list[tuple[str, dict]] = [
    ("dlrm", {"interaction": "dot", "self_interaction": True}),
    ("dlrm", {"interaction": "cat", "wide": True, "number_vectors": True}),
    ("dlrm", {"interaction": "sum", "batch_norm": True}),
    ("dlrm", {"interaction": "projection", "projection": 2}),
    ("dcnv2", {"structure": "stacked", "rank": 2}),
    ("wide_deep", {"crosses": ("user*item", "history*words"), "cross_rows": 500}),
    ("wide_deep", {"dim": 0}),
    ("finalmlp", {"gate": 3, "contexts": ("user", "")}),
]


def make(name: str, schema: Schema, **options) -> nn.Module:
    return trained(name, schema, **options).net


def check_equal(model: nn.Module, schema: Schema, *, samples: tuple[int, ...] = (7,)) -> None:
    ours = JaxModel(model)
    for number in samples:
        batch = draw(schema, number, seed=number)
        with torch.inference_mode():
            logits = model(batch).numpy()
        scale = np.abs(logits).max()
        np.testing.assert_allclose(ours.logits(batch), logits, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_catalogue(name):
    # Ids, a bag and a sequence in mixed order, piecewise numbers, two labels; then ids alone.
    check_equal(make(name, PIECEWISE), PIECEWISE, samples=(7, 1))
    check_equal(make(name, IDS), IDS)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_of_models(name, options):
    check_equal(make(name, HISTORY, **options), HISTORY)


@pytest.mark.parametrize(
    "tables",
    [
        TablesConfig(storage="bf16"),
        TablesConfig(compression="qr", threshold=50),
        TablesConfig(compression="mixed_dim", threshold=50, temperature=1.0),
        TablesConfig(compression="hash", threshold=50, weighted=True),
    ],
)
def test_tables_of_any_kind_become_whole(tables):
    check_equal(make("dcn", HISTORY, tables=tables), HISTORY)


def test_tables_of_eight_bits_become_whole():
    check_equal(quantize(make("deepfm", HISTORY, dim=16), "int8").eval(), HISTORY)


def test_no_dense_features_no_ids_and_no_samples():
    check_equal(make("dlrm", schema := history_schema(0)), schema)
    check_equal(make("fm", schema := Schema.one_hot(3, [])), schema)
    assert JaxModel(make("lr", IDS)).logits(draw(IDS, 3).slice(0, 0)).shape == (0, 1)


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_ensembles(mean):
    check_equal(Ensemble([make("lr", IDS), make("mf", IDS)], mean).eval(), IDS)


def test_regressions():
    check_equal(make("fm", schema := replace(HISTORY, task="regression")), schema)


def test_a_runtime_writes_the_description_and_runs_it(tmp_path):
    runtime, model, path = find("jax"), trained("dcn", HISTORY), tmp_path / "dcn.jax.safetensors"
    runtime.prepare(model, path, Options())
    session, batch = runtime.open(path, Options()), draw(HISTORY, 5)
    with torch.inference_mode():
        logits = model.net(batch).numpy()
    np.testing.assert_allclose(session.logits(batch), logits, rtol=1e-5, atol=1e-6)
    assert session.describe()["precision"] == "fp32"
    with pytest.raises(ConfigError, match=r"JAX reads weights out of one file.*take onnx"):
        runtime.prepare(model, path, Options(external=True))


def test_wrong_ids_name_their_feature():
    ours, batch = JaxModel(make("lr", IDS)), draw(IDS, 6)
    batch.ids[4, 2] = 120
    with pytest.raises(IdError, match=r"item: id 120 is out of range.* 120 rows"):
        ours.logits(batch)


def test_a_model_of_ones_own_is_refused():
    with pytest.raises(ConfigError, match=r"JAX has no model Linear: it has DLRM, LR, .*PyTorch"):
        JaxModel(nn.Linear(2, 2))


def test_shapes_are_few():
    feed = Feed(make("deepfm", HISTORY))
    fed = [feed(draw(HISTORY, samples)) for samples in range(9, 17)]
    shapes = {
        (inputs.dense.shape, inputs.lookups["linear.embeddings"].rows.shape) for inputs in fed
    }
    assert len(shapes) <= 2
    # Embeddings that look up alike are fed once.
    assert list(fed[0].lookups) == ["linear.embeddings"]


def test_dropout_keeps_the_mean_and_drops_its_share():
    mlp = MLP((3, 400), relu_last=True, dropout=0.25)
    p = {name: jnp.asarray(tensor.detach().numpy()) for name, tensor in mlp.named_parameters()}
    x = jnp.ones((50, 3))
    whole = layers.mlp(mlp, p, x)
    dropped = layers.mlp(mlp, {**p, "dropout": jax.random.key(1)}, x)
    kept = (dropped > 0) | (whole == 0)
    np.testing.assert_allclose(dropped, jnp.where(kept, whole / 0.75, 0), rtol=1e-6)
    assert abs(float((dropped > 0).sum() / (whole > 0).sum()) - 0.75) < 0.02
