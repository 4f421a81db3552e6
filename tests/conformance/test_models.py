"""What every model of the catalogue must do, whichever way its tables are stored or compressed.

A new model or a new kind of table needs no test of its own here: models come from `MODELS`, tables
from the list `TABLES`, data from the list `SCHEMAS`. A model that cannot be built for some of these
says so in `REFUSED`.
"""

import json
from dataclasses import fields, replace
from itertools import cycle, islice

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from batches import draw, history_schema, lists_of_one, with_kind
from dlrm import optim
from dlrm.batch import Batch
from dlrm.data.loader import Loader
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS, ModelConfig
from dlrm.models import build as build_model
from dlrm.nn.embedding import parameter_groups
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.loss import LossConfig, bce, loss_function
from dlrm.training.step import TrainStep

TABLES = {
    "fp32": TablesConfig(init_std=0.1),
    "bf16": TablesConfig(init_std=0.1, storage="bf16"),
    "split": TablesConfig(init_std=0.1, storage="split"),
    "uniform": TablesConfig(),
    "qr mult": TablesConfig(init_std=0.1, compression="qr", threshold=50),
    "qr add": TablesConfig(init_std=0.1, compression="qr", threshold=50, operation="add"),
    "qr concat": TablesConfig(init_std=0.1, compression="qr", threshold=50, operation="concat"),
    "mixed_dim": TablesConfig(init_std=0.1, compression="mixed_dim", threshold=50, temperature=1.0),
    "hash": TablesConfig(init_std=0.1, compression="hash", threshold=50),
    "hash weighted": TablesConfig(init_std=0.1, compression="hash", threshold=50, weighted=True),
    "hash bf16": TablesConfig(init_std=0.1, compression="hash", threshold=50, storage="bf16"),
}

SMALL = {"dim": 4, "bottom": (8,), "top": (8,), "deep": (8, 6), "first": (8,), "second": (8,)}
"""Sizes of a model in a test, of those fields that it has."""

SCHEMA = Schema.one_hot(3, [300, 7, 120, 2], ["user", "C1", "item", "C2"])
MIXED = history_schema()
LABELS = ("click", "buy")
SCHEMAS = {
    "ids": SCHEMA,
    "lists": with_kind(SCHEMA, "bag"),
    "sequences": with_kind(SCHEMA, "sequence"),
    "mixed, with a shared table": MIXED,
    "two labels": history_schema(labels=LABELS),
    "ratings": replace(MIXED, task="regression"),
    "no dense features": history_schema(0, LABELS),
    "one dense feature": history_schema(1),
    "one feature": Schema.one_hot(3, [300], ["user"], labels=LABELS),
    "one feature alone": Schema.one_hot(0, [300], ["user"]),
    "one list alone": Schema.one_hot(0, [300], ["user"], kind="bag", labels=LABELS),
    "piecewise numbers": replace(
        MIXED, dense=tuple(replace(f, bins=n) for f, n in zip(MIXED.dense, (5, 0, 2), strict=True))
    ),
    "dense features alone": Schema.one_hot(3, []),
}
REFUSED = {
    "mf": ("one feature", "one feature alone", "one list alone", "dense features alone"),
    "xdeepfm": ("dense features alone",),
}
"""Model -> the schemas that it refuses with an error that names it; all others it takes."""

NAMES = (*MODELS, VECTORS := "dlrm of vectors")
"""Models, and DLRM as tables of one's own have it."""
every_model = pytest.mark.parametrize("name", NAMES)
every_table = pytest.mark.parametrize("tables", TABLES)
every_schema = pytest.mark.parametrize("data", SCHEMAS)


def config(name: str, tables: str = "fp32", **settings) -> ModelConfig:
    """A small model."""
    default = MODELS["dlrm" if name == VECTORS else name]()
    if name == VECTORS:
        default = replace(default, number_vectors=True, interaction="cat", wide=True)
    names = {field.name for field in fields(default)}
    chosen = {key: value for key, value in (SMALL | settings).items() if key in names}
    return replace(default, **chosen, tables=TABLES[tables])


def possible(name: str, tables: str) -> bool:
    """Whether a model can have such tables; logistic regression has nothing to make shorter."""
    return (name, tables) != ("lr", "mixed_dim")


every_model_and_table = pytest.mark.parametrize(
    ("name", "tables"), [(n, t) for n in NAMES for t in TABLES if possible(n, t)]
)
with_dropout = [
    name for name in MODELS if "dropout" in {field.name for field in fields(MODELS[name])}
]


def build(
    model: ModelConfig, schema: Schema = SCHEMA, dtype: ComputeDtype = "fp32", seed: int = 0
) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(model, schema, dtype)


@every_model
@every_schema
def test_data_of_every_kind_are_taken_or_refused_by_name(name, data):
    schema = SCHEMAS[data]
    if data in REFUSED.get(name, ()):
        with pytest.raises(ConfigError, match=name):
            build(config(name), schema)
        return
    model = build(config(name), schema)
    for batch in (draw(schema, 9), draw(schema, 1), draw(schema, 3, longest=0)):
        check_finite(model, schema, batch)
    assert model(draw(schema, 2).slice(0, 0)).shape == (0, schema.num_labels)


def check_finite(model: nn.Module, schema: Schema, batch: Batch) -> None:
    """Logits, and the gradients of all parameters, are numbers."""
    model.zero_grad()
    logits = model(batch)
    assert logits.shape == (len(batch), schema.num_labels)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    loss_function(LossConfig(), schema.task)(logits, batch).backward()
    for parameter_name, parameter in model.named_parameters():
        # Tables of no feature have no rows.
        if parameter.numel():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.shape == parameter.shape, parameter_name
            assert parameter.grad.to_dense().isfinite().all(), parameter_name


@every_model_and_table
def test_logits_and_gradients_are_finite_numbers_with_any_tables(name, tables):
    for schema in (SCHEMA, history_schema(labels=LABELS)):
        model = build(config(name, tables), schema)
        for batch in (draw(schema, 9), draw(schema, 1)):
            check_finite(model, schema, batch)


@every_model_and_table
def test_one_id_and_a_list_of_one_are_the_same(name, tables):
    single, several = (build(config(name, tables), schema) for schema in (SCHEMA, SCHEMAS["lists"]))
    several.load_state_dict(single.state_dict())
    batch = draw(SCHEMA, 17)
    torch.testing.assert_close(single(batch), several(lists_of_one(batch)), rtol=1e-5, atol=1e-6)
    narrow = replace(batch, ids=batch.ids.int())
    assert torch.equal(single(batch), single(narrow))


@every_model_and_table
def test_saved_and_loaded_it_gives_the_same_bits(name, tables):
    model, other = (build(config(name, tables), MIXED, seed=seed) for seed in (0, 1))
    train(model, [draw(MIXED, 32)], steps=2)
    batch = draw(MIXED, 32, seed=1)
    assert not torch.equal(model(batch), other(batch))
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(model(batch), other(batch))


@every_model_and_table
def test_a_call_repeats_and_a_seed_does(name, tables):
    model, batch = build(config(name, tables), MIXED), draw(MIXED, 32)
    logits = model(batch)
    assert torch.equal(logits, model(batch))
    assert torch.equal(logits, build(config(name, tables), MIXED)(batch))


@every_model
def test_tables_without_memory_cost_nothing_and_get_it_later(name):
    vast = replace(MIXED, tables=tuple(replace(t, num_embeddings=10**12) for t in MIXED.tables))
    fresh = config(name).build(vast)
    tables = [p for p in fresh.parameters() if p.is_meta]
    assert sum(p.numel() for p in tables) > 10**12
    assert sum(p.numel() for p in fresh.parameters() if not p.is_meta) < 10**5
    assert not any(p.is_meta for p in build(config(name), MIXED).parameters())


@every_model
def test_samples_do_not_see_each_other(name):
    for schema in (SCHEMA, history_schema(labels=LABELS)):
        model, batch = build(config(name), schema).eval(), draw(schema, 16)
        part = model(batch.slice(5, 9))
        torch.testing.assert_close(model(batch)[5:9], part, rtol=1e-4, atol=1e-5)


@every_model
def test_opposite_labels_are_learnt_by_one_model(name):
    schema = history_schema(labels=LABELS)
    model, batch = build(config(name), schema), draw(schema, 64)
    labels = torch.cat([batch.labels[:, :1], 1 - batch.labels[:, :1]], dim=1)
    train(model, [replace(batch, labels=labels)], steps=60)
    with torch.no_grad():
        # One logit for both could do no better than log 2.
        assert bce(model(batch), labels) < 0.6


@every_model
def test_bfloat16_is_close_to_float32(name):
    for schema in (SCHEMA, history_schema(labels=LABELS)):
        exact = build(config(name), schema)
        rounded = build(config(name), schema, dtype="bf16")
        rounded.load_state_dict(exact.state_dict())
        batch = draw(schema, 64)
        a, b = exact(batch), rounded(batch)
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.02 * (1 + a.abs().max())
        bce(b, batch.labels).backward()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in rounded.parameters())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", with_dropout)
def test_dropout_and_batch_norm_are_for_training(name, dtype):
    settings = config(name, dropout=0.5, batch_norm=True)
    model = build(settings, MIXED, dtype)
    batch = draw(MIXED, 32)
    train(model, [batch], steps=3)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    logits = model(batch)
    assert torch.equal(logits, model(batch))
    rtol, atol = (1e-4, 1e-5) if dtype == "fp32" else (0.05, 0.01)
    torch.testing.assert_close(logits[5:9], model(batch.slice(5, 9)), rtol=rtol, atol=atol)
    other = build(settings, MIXED, dtype)
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(logits, other.eval()(batch))


def train(model: nn.Module, batches: list[Batch], steps: int) -> None:
    optimizer = optim.build("adagrad", parameter_groups(model), 0.02)
    step = TrainStep(model, optimizer, loss_function(LossConfig()))
    for batch in islice(cycle(batches), steps):
        step(batch)


def check_learns(settings: ModelConfig, clicks) -> None:
    if settings.name == "mf":
        settings = replace(settings, user="C6", item="C17")
    model = build(settings, clicks.schema)
    batches = list(Loader(clicks.split("train"), batch_size=256).epoch(0))

    def loss() -> float:
        with torch.no_grad():
            return sum(bce(model(batch), batch.labels).item() for batch in batches) / len(batches)

    before = loss()
    train(model, batches, steps=50)
    assert loss() < before - 0.02


@every_model
def test_fifty_steps_lower_the_loss(name, clicks):
    check_learns(config(name), clicks)


@every_table
def test_fifty_steps_lower_the_loss_with_any_tables(tables, clicks):
    check_learns(config("deepfm", tables), clicks)


@every_model_and_table
def test_config_survives_json(name, tables):
    whole = TrainConfig(model=config(name, tables))
    assert from_dict(json.loads(json.dumps(to_dict(whole)))) == whole


def test_tables_that_a_model_cannot_have_are_named():
    with pytest.raises(ConfigError, match=r"mixed_dim.*lr"):
        config("lr", "mixed_dim")


@every_model_and_table
def test_an_id_out_of_range_names_its_feature(name, tables):
    single, several = (build(config(name, tables), schema) for schema in (SCHEMA, SCHEMAS["lists"]))
    for wrong in (-1, 120, 2**31 - 1):
        batch = draw(SCHEMA, 6)
        batch.ids[4, 2] = wrong
        for model, samples in ((single, batch), (several, lists_of_one(batch))):
            with pytest.raises(IdError, match=f"item: id {wrong} is out of range.* 120 rows"):
                model(samples)
