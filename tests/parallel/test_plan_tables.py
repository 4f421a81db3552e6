"""What a model keeps, against real models and optimizers, byte for byte."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models import MODELS
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS, build
from dlrm.parallel.tables import contents
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

ROWS = {"user": 300, "item": 1000, "day": 7}
SCHEMA = Schema(
    dense=(DenseFeature(name="age"),),
    categorical=tuple(CategoricalFeature(name=n, rows=r) for n, r in ROWS.items()),
)


def batch(size: int = 16) -> Batch:
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(0, rows, size) for rows in ROWS.values()], 1)
    return Batch(
        dense=torch.rand(size, 1),
        ids=torch.from_numpy(ids.astype(np.int32)),
        labels=torch.ones(size),
    )


def trained(config, optimizer: str):
    """A model on the meta device; the same one in memory, after a step of this optimizer."""
    with torch.device("meta"):
        promised = config.build(SCHEMA)
    model = config.build(SCHEMA)
    step = build(optimizer, model.parameters(), 0.1)
    model(batch()).sum().backward()
    step.step()
    return promised, model, step


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bytes_are_those_of_real_optimizers(optimizer, storage):
    config = MODELS["wide_deep"](tables=TablesConfig(storage=storage))
    promised, model, step = trained(config, optimizer)
    found = contents(promised, optimizer)
    assert found == contents(model, optimizer)
    kept = sum(tensor.nbytes for tensor in model.state_dict().values())
    state = sum(v.nbytes for p in model.parameters() for v in step.state[p].values())
    assert (found.model_bytes, found.state_bytes) == (kept, state)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    # Row by row too: each table as large as its rows of weight and state.
    weights = {n: p for n, p in model.named_parameters() if p.grad is not None and p.grad.is_sparse}
    assert len(found.tables) == len(ROWS) * len(weights)
    for name, weight in weights.items():
        path = name.removesuffix(".weight")
        mine = [table for table in found.tables if table.name.startswith(f"{path}/")]
        kept = sum(v.nbytes for k, v in step.state[weight].items() if k != "step")
        assert sum(table.size_bytes for table in mine) == weight.nbytes + kept
        assert [table.rows for table in mine] == list(ROWS.values())
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
    with torch.device("meta"):
        model = config.build(SCHEMA)
    found = {t.name: t for t in contents(model, "sgd", {"item": 5.0}).tables}
    assert set(found) == {
        "embeddings.parts.0/day",
        "embeddings.parts.1.tables/user",
        "embeddings.parts.1.tables/item",
    }
    assert found["embeddings.parts.1.tables/item"].pooling == 15.0
    assert found["embeddings.parts.0/day"].pooling == 1.0


def test_no_such_optimizer():
    with pytest.raises(ConfigError, match="unknown optimizer"):
        contents(torch.nn.Linear(1, 1), "lion")
