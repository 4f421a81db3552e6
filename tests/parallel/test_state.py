"""Where tensors lie in the whole model: what any number of processes writes, any other reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dlrm import tensor_file
from dlrm.models import DeepFMConfig
from dlrm.nn.embedding import materialize, parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.optim import Adam, Declaration, Groups, SparseOptimizer
from dlrm.optim.optimizer import zeros
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import parallelize
from dlrm.parallel.world import ALONE, World
from dlrm.planning.placement import Sharding, plan
from dlrm.planning.tables import contents
from dlrm.schema import DenseFeature, Feature, Schema, Table
from dlrm.training import state

from .ranks import Ranks

SCHEMA = Schema(
    dense=(DenseFeature(name="age"),),
    tables=(Table(name="user", num_embeddings=11), Table(name="item", num_embeddings=23)),
    features=(
        Feature(name="user", table="user"),
        Feature(name="item", table="item"),
        Feature(name="history", table="item", kind="sequence"),
    ),
)
DIM = 6


class Keeps(SparseOptimizer):
    """Keeps something of every kind, and updates nothing.

    Of a row it keeps as many numbers as half of its columns are: on two processes that have columns
    each, shapes alone would not tell the two apart.
    """

    declaration = Declaration(
        state_per_table_number=2,
        state_per_table_row=1 + DIM // 2,
        state_per_dense_number=1,
        state_bytes_per_group=8,
        table_flops=0,
        dense_flops=0,
    )

    def __init__(self, params: Groups, lr: float):
        super().__init__(params, {"lr": lr})

    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return state of dense parameters."""
        return {"mean": zeros(weight)}

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return state of tables."""
        rows, dim = weight.shape
        return {
            "each": zeros(weight, (rows, 2, dim)),
            "row": zeros(weight, (rows,)),
            "several": zeros(weight, (rows, DIM // 2)),
        }

    def group_state(self) -> dict[str, Tensor]:
        """Return state of a group."""
        return {"count": torch.zeros(1, dtype=torch.int64)}

    def update_dense(self, group: Any, weights: Any, grads: Any) -> None:
        """Do nothing."""

    def update_table(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""


OPTIMIZERS = {"keeps": Keeps, "adam": Adam}


def built(world: World, name: str, sharding: Sharding):
    """Return a model with two collections, sharded, and its optimizer."""
    torch.manual_seed(7)
    tables = TablesConfig(storage="split" if name == "adam" else "fp32")
    model = DeepFMConfig(dim=DIM, deep=(4,), tables=tables).build(SCHEMA)
    if world.size > 1:
        placed = plan(contents(model, "adam").tables, world.size, sharding=sharding)
        exchange = Exchange(world.rank, world.size, world.exchange)
        model = parallelize(model, placed, exchange)
    materialize(model)
    return model, OPTIMIZERS[name](parameter_groups(model), 0.1)


def write(world: World, path: Path, wholes: dict[str, Any]) -> None:
    if world.first:
        tensor_file.create(path, wholes)
    world.barrier()
    tensor_file.write(path, wholes)
    world.barrier()


def converted(world: World, name: str, sharding: Sharding, source: Path, target: Path) -> None:
    """Read the files of a folder as this many processes, and write them to another."""
    model, optimizer = built(world, name, sharding)
    with safe_open(source / "model", "pt") as stored:
        assert state.model_mismatch(model, stored) is None
        state.load_model(model, stored)
    with safe_open(source / "optimizer", "pt") as stored:
        assert state.optimizer_mismatch(model, optimizer, stored) is None
        state.load_optimizer(model, optimizer, stored)
    write(world, target / "model", state.model_wholes(model, world.first))
    write(world, target / "optimizer", state.optimizer_wholes(model, optimizer, world.first))


def filled(world: World, name: str, folder: Path) -> None:
    """Write files of one process in which every number is another."""
    model, optimizer = built(world, name, "auto")
    number = 0
    for values in optimizer.state.values():
        for tensor in values.values():
            tensor.copy_(torch.arange(number, number + tensor.numel()).view(tensor.shape))
            number += tensor.numel()
    write(world, folder / "model", state.model_wholes(model))
    write(world, folder / "optimizer", state.optimizer_wholes(model, optimizer))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("sharding", ["table", "row", "column", "replicate"])
def test_what_some_processes_write_others_read(ranks: Ranks, tmp_path, name, sharding):
    folders = [tmp_path / f"{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    ranks.run(filled, name, folders[0], world=1)
    for world, source, target in zip((2, 3, 1), folders[:-1], folders[1:], strict=True):
        ranks.run(converted, name, sharding, source, target, world=world)
        for file in ("model", "optimizer"):
            ours, theirs = load_file(folders[0] / file), load_file(target / file)
            assert ours.keys() == theirs.keys()
            assert all(theirs[key].equal(tensor) for key, tensor in ours.items())


def test_names_are_those_of_one_process():
    _, optimizer = built(ALONE, "keeps", "auto")
    model, _ = built(ALONE, "keeps", "auto")
    wholes = state.optimizer_wholes(model, Keeps(parameter_groups(model), 0.1))
    shapes = {name: whole.shape for name, whole in wholes.items() if name.startswith("embeddings.")}
    rows = 11 + 23
    assert shapes == {
        "embeddings.weight.count": (1,),
        "embeddings.weight.each": (rows, 2, DIM),
        "embeddings.weight.row": (rows,),
        "embeddings.weight.several": (rows, DIM // 2),
    }
    # A counter for each group: dense parameters, and each collection.
    assert sum(name.endswith(".count") for name in wholes) == len(optimizer.param_groups) == 3


def test_a_file_of_another_optimizer_is_told(tmp_path):
    world = ALONE
    filled(world, "keeps", tmp_path)
    model, optimizer = built(world, "adam", "auto")
    with safe_open(tmp_path / "optimizer", "pt") as stored:
        problem = state.optimizer_mismatch(model, optimizer, stored)
    assert problem is not None
    assert "nothing" in problem
