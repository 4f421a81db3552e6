"""What a model keeps, against real models and optimizers, byte for byte."""

from dataclasses import replace

import pytest
import torch

from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError
from dlrm.models import MODELS
from dlrm.nn.embedding import collections_of, materialize, parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS, build
from dlrm.planning.tables import contents
from dlrm.schema import Feature, Schema

ROWS = {"user": 300, "item": 1000, "day": 7}
ONE_HOT = Schema.one_hot(1, ROWS.values(), list(ROWS))
SHARED = replace(
    ONE_HOT,
    features=(*ONE_HOT.features, Feature(name="history", table="item", kind="sequence")),
)


def batch(schema: Schema, size: int = 16) -> Batch:
    """Return a batch of ids that every table has."""
    lists = None
    if schema.list_features:
        lists = Jagged(torch.arange(2 * size) % 7, torch.arange(0, 2 * size + 1, 2))
    ids = torch.arange(size)[:, None] % 7
    return Batch(
        dense=torch.rand(size, 1),
        ids=ids.expand(-1, len(schema.one_hot_features)).contiguous(),
        labels=torch.ones(size, 1),
        lists=lists,
    )


def trained(config, optimizer: str, schema: Schema = ONE_HOT):
    """Return a model without memory, and the same one in memory after a step."""
    promised = config.build(schema)
    model = materialize(config.build(schema))
    step = build(optimizer, parameter_groups(model), 0.1)
    model(batch(schema)).sum().backward()
    step.step()
    return promised, model, step


@pytest.mark.parametrize("schema", [ONE_HOT, SHARED], ids=["one-hot", "shared"])
@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "sign_sgd:SignSGD"])
def test_bytes_are_those_of_real_optimizers(optimizer, storage, schema):
    config = MODELS["wide_deep"](tables=TablesConfig(storage=storage))
    promised, model, step = trained(config, optimizer, schema)
    found = contents(promised, optimizer)
    assert found == contents(model, optimizer)
    kept = sum(tensor.nbytes for tensor in model.state_dict().values())
    state = sum(v.nbytes for p in model.parameters() for v in step.state[p].values())
    assert (found.model_bytes, found.state_bytes) == (kept, state)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    # Row by row too: each table as large as its rows of weight and state.
    weights = {n: p for n, p in model.named_parameters() if p.grad is not None and p.grad.is_sparse}
    assert len(found.tables) == len(ROWS) * len(weights) == len(ROWS) * len(collections_of(model))
    for name, weight in weights.items():
        path = name.removesuffix(".weight")
        mine = [table for table in found.tables if table.name.startswith(f"{path}/")]
        kept = sum(v.nbytes for k, v in step.state[weight].items() if k != "step")
        assert sum(table.size_bytes for table in mine) == weight.nbytes + kept
        assert [table.num_embeddings for table in mine] == list(ROWS.values())
        assert all(table.may_replicate == (storage != "bf16") for table in mine)


WAYS = [
    (name, compression)
    for name in MODELS
    for compression in ("none", "qr", "mixed_dim", "hash")
    # Rows of one number cannot be shorter.
    if (name, compression) != ("lr", "mixed_dim")
]


@pytest.mark.parametrize(("name", "compression"), WAYS)
def test_every_model_and_compression_is_known_before_it_is_built(name, compression):
    config = replace(MODELS[name](), tables=TablesConfig(compression=compression))
    promised, model, _ = trained(config, "adam")
    found = contents(promised, "adam")
    assert found == contents(model, "adam")
    assert found.model_bytes == sum(tensor.nbytes for tensor in model.state_dict().values())
    names = [table.name for table in found.tables]
    assert len(set(names)) == len(names)


def test_names_and_lookups():
    config = MODELS["dlrm"](tables=TablesConfig(compression="hash", hashes=3, threshold=100))
    found = {t.name: t for t in contents(config.build(SHARED), "sgd", {"history": 5.0}).tables}
    assert set(found) == {
        "embeddings.parts.0/day",
        "embeddings.parts.1.tables/user",
        "embeddings.parts.1.tables/item",
    }
    item, day = found["embeddings.parts.1.tables/item"], found["embeddings.parts.0/day"]
    # One table for the item and the history of items; each of six ids is three rows.
    assert (item.pooling, item.features, item.lists) == (18.0, 2, 2)
    assert (day.pooling, day.features, day.lists) == (1.0, 1, 0)
    plain = {t.name: t for t in contents(MODELS["fm"]().build(SHARED), "sgd").tables}
    shared = plain["embeddings/item"]
    assert (shared.pooling, shared.features, shared.lists) == (2.0, 2, 1)


def test_no_such_optimizer():
    with pytest.raises(ConfigError, match="unknown optimizer"):
        contents(torch.nn.Linear(1, 1), "lion")
