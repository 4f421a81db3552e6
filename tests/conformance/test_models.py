"""What every model of the catalogue must do, whichever way its tables are stored or compressed.

A new model or a new kind of table needs no test of its own here: models come from `MODELS`, tables
from the list `TABLES`.
"""

import json
from dataclasses import fields, replace
from itertools import cycle, islice

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dlrm import optim
from dlrm.batch import Batch
from dlrm.data.loader import Loader
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS, ModelConfig
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import CategoricalFeature, DenseFeature, Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.loss import bce

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

SCHEMA = Schema(
    dense=tuple(DenseFeature(name=f"I{i}") for i in range(3)),
    categorical=(
        CategoricalFeature(name="user", rows=300),
        CategoricalFeature(name="C1", rows=7),
        CategoricalFeature(name="item", rows=120),
        CategoricalFeature(name="C2", rows=2),
    ),
)

every_model = pytest.mark.parametrize("name", MODELS)
every_table = pytest.mark.parametrize("tables", TABLES)


def config(name: str, tables: str = "fp32", **settings) -> ModelConfig:
    """A small model."""
    default = MODELS[name]()
    names = {field.name for field in fields(default)}
    chosen = {key: value for key, value in (SMALL | settings).items() if key in names}
    return replace(default, **chosen, tables=TABLES[tables])


def possible(name: str, tables: str) -> bool:
    """Whether a model can have such tables; logistic regression has nothing to make shorter."""
    return (name, tables) != ("lr", "mixed_dim")


every_model_and_table = pytest.mark.parametrize(
    ("name", "tables"), [(n, t) for n in MODELS for t in TABLES if possible(n, t)]
)
with_dropout = [
    name for name, made in MODELS.items() if "dropout" in {field.name for field in fields(made)}
]


def build(
    made: ModelConfig, schema: Schema = SCHEMA, precision: ComputeDtype = "fp32"
) -> nn.Module:
    torch.manual_seed(0)
    return made.build(schema, precision)


def draw(samples: int, *, longest: int | None = None, schema: Schema = SCHEMA, seed=0) -> Batch:
    """Random samples of a schema; with `longest`, bags of so many ids or fewer."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(samples, len(schema.dense), generator=generator)
    labels = torch.randint(0, 2, (samples,), generator=generator).float()
    if longest is None:
        ids = [torch.randint(0, n, (samples,), generator=generator) for n in schema.rows]
        return Batch(dense, torch.stack(ids, dim=1), labels)
    bags = samples * len(schema.rows)
    lengths = torch.randint(0, longest + 1, (bags,), generator=generator)
    ids = [
        torch.randint(0, schema.rows[g % len(schema.rows)], (int(n),), generator=generator)
        for g, n in enumerate(lengths)
    ]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Batch(dense, torch.cat(ids), labels, offsets)


@every_model_and_table
def test_logits_and_gradients_are_finite_numbers(name, tables):
    model = build(config(name, tables))
    for batch in (draw(9), draw(9, longest=3), draw(1), draw(1, longest=1)):
        model.zero_grad()
        logits = model(batch)
        assert logits.shape == (len(batch),)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        bce(logits, batch.labels).backward()
        for of, parameter in model.named_parameters():
            assert parameter.grad is not None, of
            assert parameter.grad.shape == parameter.shape, of
            assert parameter.grad.to_dense().isfinite().all(), of


@every_model_and_table
def test_one_id_and_a_bag_of_one_are_the_same(name, tables):
    model = build(config(name, tables))
    one = draw(17)
    bags = Batch(one.dense, one.ids.flatten(), one.labels, torch.arange(one.ids.numel() + 1))
    torch.testing.assert_close(model(one), model(bags), rtol=1e-5, atol=1e-6)
    narrow = Batch(one.dense, one.ids.int(), one.labels)
    assert torch.equal(model(one), model(narrow))


@every_model_and_table
def test_saved_and_loaded_it_gives_the_same_bits(name, tables):
    model = build(config(name, tables))
    train(model, [draw(32)], steps=2)
    torch.manual_seed(1)
    other = config(name, tables).build(SCHEMA)
    other.load_state_dict(load(save(model.state_dict())))
    for batch in (draw(32), draw(32, longest=3)):
        assert torch.equal(model(batch), other(batch))


@every_model_and_table
def test_a_call_repeats_and_a_seed_does(name, tables):
    made = config(name, tables)
    model, batch = build(made), draw(32)
    logits = model(batch)
    assert torch.equal(logits, model(batch))
    assert torch.equal(logits, build(made)(batch))


@every_model
def test_samples_do_not_see_each_other(name):
    model = build(config(name)).eval()
    for batch in (draw(16), draw(16, longest=3)):
        part = model(batch.slice(5, 9))
        torch.testing.assert_close(model(batch)[5:9], part, rtol=1e-4, atol=1e-5)


@every_model
def test_bfloat16_is_close_to_float32(name):
    made = config(name)
    exact, rounded = build(made), build(made, precision="bf16")
    rounded.load_state_dict(exact.state_dict())
    for batch in (draw(64), draw(64, longest=3)):
        a, b = exact(batch), rounded(batch)
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.02 * (1 + a.abs().max())
        bce(b, batch.labels).backward()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in rounded.parameters())


@pytest.mark.parametrize("name", with_dropout)
def test_dropout_and_batch_norm_are_for_training(name):
    made = config(name, dropout=0.5, batch_norm=True)
    model = build(made)
    batch = draw(32)
    train(model, [batch], steps=3)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    logits = model(batch)
    assert torch.equal(logits, model(batch))
    torch.testing.assert_close(logits[5:9], model(batch.slice(5, 9)), rtol=1e-4, atol=1e-5)
    other = build(made)
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(logits, other.eval()(batch))


def train(model: nn.Module, batches: list[Batch], steps: int) -> None:
    optimizer = optim.build("adagrad", model.parameters(), 0.02)
    for batch in islice(cycle(batches), steps):
        optimizer.zero_grad()
        bce(model(batch), batch.labels).backward()
        optimizer.step()
    optimizer.zero_grad()


def check_learns(made: ModelConfig, clicks) -> None:
    if made.name == "mf":
        made = replace(made, user="C6", item="C17")
    model = build(made, clicks.schema)
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


# torch says so of a layer without inputs, which is what dlrm's bottom MLP then begins with.
@every_model
def test_data_without_dense_features_or_with_one_feature_work_or_are_refused(name):
    ids = SCHEMA.categorical
    for schema in (
        Schema(dense=(), categorical=ids),
        Schema(dense=SCHEMA.dense[:1], categorical=ids),
        Schema(dense=SCHEMA.dense, categorical=ids[:1]),
        Schema(dense=(), categorical=ids[:1]),
    ):
        try:
            model = build(config(name), schema)
        except ConfigError as error:
            refused = str(error)
            assert name in refused
            continue
        for batch in (draw(5, schema=schema), draw(5, schema=schema, longest=2)):
            logits = model(batch)
            assert logits.shape == (5,)
            bce(logits, batch.labels).backward()


def test_tables_that_a_model_cannot_have_are_named():
    with pytest.raises(ConfigError, match=r"mixed_dim.*lr"):
        config("lr", "mixed_dim")


@every_model_and_table
def test_an_id_out_of_range_names_its_feature(name, tables):
    model = build(config(name, tables))
    for wrong in (-1, 120, 2**31 - 1):
        one = draw(6)
        one.ids[4, 2] = wrong
        bags = Batch(one.dense, one.ids.flatten(), one.labels, torch.arange(25))
        for batch in (one, bags):
            with pytest.raises(IdError, match=f"item: id {wrong} is out of range.* 120 rows"):
                model(batch)
