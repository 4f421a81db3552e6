"""The original's distributed mode: who this process is, and where the tables are.

torchrun names a process in RANK, WORLD_SIZE and LOCAL_RANK, launchers of MPI in variables of their
own. Tables are spread whole over all processes, and the MLPs copied. Each process takes its share
of every batch, see `Share`, and the first prints what is true of all of them.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from torch import Tensor, nn

from dlrm.compat.batches import WHOLE, Share
from dlrm.compat.flags import Flags
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import Collection, EmbeddingCollection
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import ParallelModel, parallelize
from dlrm.parallel.world import ALONE, World
from dlrm.planning.placement import plan
from dlrm.planning.tables import contents

MPI = {
    "RANK": ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    "LOCAL_WORLD_SIZE": (
        "MPI_LOCALNRANKS",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
}
"""torchrun's name of a variable -> those of Intel MPI and MPICH, Open MPI, and MVAPICH2."""

PORT = "29500"
"""The original's, where none is named."""

TIMEOUT_S = 1800.0
"""Timeout of an exchange, as in the original: the first may write a large model meanwhile."""


def translate(variables: MutableMapping[str, str]) -> None:
    """Name a process that a launcher of MPI has started as torchrun would.

    What stands there already stays, so that MPI may start torchruns.

    Raises:
        ConfigError: The processes are on several hosts, and none is named for them to meet at.

    """
    if not {"RANK", "WORLD_SIZE"} & variables.keys():
        values = {name: _first(variables, names) for name, names in MPI.items()}
        if values["RANK"] is None or values["WORLD_SIZE"] is None:
            return
        for name, value in values.items():
            if value is not None:
                variables.setdefault(name, value)
        local = values["LOCAL_WORLD_SIZE"]
        if "MASTER_ADDR" not in variables and local not in (None, variables["WORLD_SIZE"]):
            raise ConfigError(
                f"{variables['WORLD_SIZE']} processes, {local} of them on this host, and "
                "MASTER_ADDR is not set: set it to the host of rank 0, on all of them"
            )
    variables.setdefault("MASTER_ADDR", "127.0.0.1")
    variables.setdefault("MASTER_PORT", PORT)


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((variables[name] for name in names if name in variables), None)


def start(flags: Flags, variables: MutableMapping[str, str] = os.environ) -> World:
    """Return this process among those that a launcher started with it.

    Without `--dist-backend`, gloo carries what is exchanged.

    Raises:
        ConfigError: The backend is not there, or the processes were not started alike.
        WorldError: Another process did not come.

    """
    if variables.get("WORLD_SIZE", "1") == "1":
        return ALONE
    if flags.local_rank >= 0:
        variables["LOCAL_RANK"] = str(flags.local_rank)
    return World.from_environment(flags.dist_backend or "gloo", TIMEOUT_S)


def share_of(world: World) -> Share:
    """Return what this process takes of each batch."""
    return WHOLE if world.size == 1 else Share(world.rank, world.size)


@contextmanager
def silent() -> Iterator[None]:
    """Print nothing within: another process does."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def spread_tables(model: DLRM, optimizer: str, world: World) -> DLRM:
    """Spread the tables of a model over the processes, each whole on one of them.

    The tables have no memory yet; the model is changed in place. `optimizer` is the name of what
    trains it, as this project has it.
    """
    if world.size == 1:
        return model
    placed = plan(contents(model, optimizer).tables, world.size, sharding="table")
    return parallelize(model, placed, Exchange(world.rank, world.size, world.exchange))


def parallel(model: DLRM, world: World) -> nn.Module:
    """Return what computes the logits (b,) of this process' share of a batch."""
    if world.size == 1:
        return model
    return ParallelModel(model, spread_collections(model)[0].exchange, world.group)


def spread_collections(model: nn.Module) -> list[ShardedCollection]:
    """Return all collections that are spread."""
    return [module for module in model.modules() if isinstance(module, ShardedCollection)]


def own_table(tables: Collection, t: int) -> Tensor | None:
    """Return the (rows, D) weight of table t where this process keeps it, a view, else None."""
    if isinstance(tables, EmbeddingCollection):
        return tables.table(t)
    assert isinstance(tables, ShardedCollection)
    for kept in tables.kept:
        if kept.shard.table == t:
            return kept.weight.detach()[kept.place : kept.place + kept.shard.rows]
    return None
