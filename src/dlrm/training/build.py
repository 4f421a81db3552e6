"""What a run trains: its model, on one process or many, and the optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import nn
from torch.optim import Optimizer

from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.nn import precision
from dlrm.nn.embedding import Initializer, Storage
from dlrm.parallel.build import Engine, described, spread
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.device import quantity
from dlrm.parallel.exchange import WIRE, Wire
from dlrm.parallel.fused import fused
from dlrm.parallel.model import ParallelModel
from dlrm.parallel.plan import Plan, plan
from dlrm.parallel.shards import Kind, Shard
from dlrm.parallel.tables import contents
from dlrm.parallel.torchrec_parts import FusedCollection
from dlrm.parallel.world import World
from dlrm.schema import Schema
from dlrm.training import state
from dlrm.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Built:
    """A model on this process."""

    model: nn.Module
    """What this process keeps; checkpoints are of it."""
    net: nn.Module
    """`forward(batch) -> logits (b,)`, of the samples of this process."""
    plan: Plan | None
    """Where the tables are; None on one process."""


LOOKED_AT = 100_000
"""Rows of a split whose lists are measured."""


def build(
    config: TrainConfig,
    schema: Schema,
    world: World,
    ids: Mapping[str, float] | None = None,
) -> Built:
    """Return the model of a run, fresh.

    Args:
        config: Of the run.
        schema: Of its data.
        world: The processes of the run.
        ids: Mean ids that a sample has of each feature, by its name; 1 where none is given.

    Raises:
        PlanError: The tables do not fit the processes' memory.

    """

    def make() -> nn.Module:
        return config.model.build(schema, precision.resolve(config.precision))

    if world.size == 1 and config.engine == "dlrm":
        model = make()
        return Built(model, model, None)
    made = plan_of(config, schema, world.size, ids)
    wire = Wire(world.rank, world.size, world.exchange, dtype=WIRE[config.parallel.wire])
    engine = ShardedCollection if config.engine == "dlrm" else _torchrec(config, wire)
    model = spread(make, made, wire, engine)
    net = model if world.size == 1 else ParallelModel(model, wire, world.group)
    return Built(model, net, made)


def _torchrec(config: TrainConfig, wire: Wire) -> Engine:
    """Return what makes TorchRec's collections, whose optimizers are fused into them."""
    # It takes long to import, and may be missing.
    from dlrm.parallel.torchrec import Auto, TorchRecCollection

    if config.average.share:
        raise ConfigError(
            f"average.share is {config.average.share}: with the engine torchrec it must be 0"
        )
    if config.parallel.wire != "fp32":
        raise ConfigError(
            f"parallel.wire is {config.parallel.wire}: with the engine torchrec it must be fp32"
        )
    optimizer = fused(config.optim)
    auto = Auto(batch_size=max(1, config.loader.batch_size // wire.size))

    def make(
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage,
        draw: Initializer | None,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        wire: Wire,
    ) -> FusedCollection:
        by_itself = config.parallel.sharding == "auto"
        return TorchRecCollection(
            rows,
            dim,
            names,
            storage=storage,
            draw=draw,
            kinds=None if by_itself else kinds,
            shards=shards,
            auto=auto,
            wire=wire,
            optimizer=optimizer,
        )

    return make


def optimizer_of(config: TrainConfig, built: Built) -> Optimizer:
    """Return the optimizer of a run, of those parameters that this process keeps."""
    model = built.model
    total = sum(prod(whole.shape) for whole in state.model_wholes(model).values())
    optimizer = config.optim.build(model.parameters(), total=total)
    tables = [module for module in model.modules() if isinstance(module, FusedCollection)]
    if tables:
        group = optimizer.param_groups[0]

        def before(*_: object) -> None:
            for each in tables:
                each.set_lr(group["lr"])

        def after(*_: object) -> None:
            for each in tables:
                each.step()

        built.net.register_forward_pre_hook(before)
        optimizer.register_step_post_hook(after)
    return optimizer


def pooling(dataset: Dataset) -> dict[str, float]:
    """Return the mean length of the lists of each feature; none where there are no lists."""
    split = dataset.split("train")
    if split.offsets is None or len(split) == 0:
        return {}
    names = dataset.schema.names
    ends = split.offsets[: min(len(split), LOOKED_AT) * len(names) + 1]
    lengths = np.diff(ends).reshape(-1, len(names)).mean(axis=0)
    return dict(zip(names, map(float, lengths), strict=True))


def plan_of(
    config: TrainConfig, schema: Schema, world: int, ids: Mapping[str, float] | None = None
) -> Plan:
    """Return where the tables of a run are on so many processes; arguments as for `build`.

    Raises:
        PlanError: They do not fit.

    """
    described_model, _ = described(lambda: config.model.build(schema, "fp32"))
    memory = config.parallel.device_memory
    return plan(
        contents(described_model, config.optim.name, ids).tables,
        world,
        sharding=config.parallel.sharding,
        memory_bytes=int(quantity(memory, "B", "parallel.device_memory")) if memory else None,
        batch_size=config.loader.batch_size,
    )
