"""What a run trains: its model, on one process or many, and the optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from dlrm import terminal
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.models.standardized import Standardized
from dlrm.nn import precision
from dlrm.nn.embedding import materialize, parameter_groups
from dlrm.nn.precision import ComputeDtype
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import DTYPES, Exchange
from dlrm.parallel.model import Engine, ParallelModel, parallelize
from dlrm.parallel.torchrec.fused import FusedCollection, fused
from dlrm.parallel.world import World
from dlrm.planning.placement import Plan, plan
from dlrm.planning.quantities import quantity
from dlrm.planning.tables import contents
from dlrm.schema import Schema
from dlrm.training import state
from dlrm.training.config import TrainConfig
from dlrm.training.device import resolve_device

MEASURED_ROWS = 100_000
"""Rows of a split whose lists are measured."""


@dataclass(frozen=True, slots=True)
class Built:
    """A model on this process."""

    model: nn.Module
    """What this process keeps; checkpoints are of it."""
    net: nn.Module
    """`forward(batch) -> logits (b, K)`, of the samples of this process."""
    plan: Plan | None
    """Where the tables are; None on one process."""


def world_of(config: TrainConfig) -> World:
    """Return the processes that were started together with this one, of which the first speaks."""
    backend, timeout_s = config.parallel.backend, config.parallel.timeout_s
    device = partial(resolve_device, config.device)
    world = World.from_environment(backend, timeout_s, device=device)
    if not world.first:
        terminal.silence()
    return world


def build(
    config: TrainConfig,
    schema: Schema,
    world: World,
    pooling: Mapping[str, float] | None = None,
    device: torch.device | None = None,
) -> Built:
    """Return the model of a run, fresh.

    Args:
        config: Config of the run.
        schema: Schema of its data.
        world: The processes of the run.
        pooling: Mean ids that a sample has of each feature, by its name; 1 where none is given.
        device: Where it is; None for the device of the config.

    Raises:
        ConfigError: The model cannot be built for these data, or there is no such device.
        PlanError: The tables do not fit the processes' memory.

    """
    device = device or resolve_device(config.device, world.local_rank, world.local_size)
    model = untrained(config, schema, precision.resolve(config.precision))
    if world.size == 1 and config.engine == "dlrm":
        model = materialize(model, device)
        return Built(model, model, None)
    placed = _planned(config, model, world.size, pooling)
    dtype = DTYPES[config.parallel.exchange_dtype]
    exchange = Exchange(world.rank, world.size, world.exchange, dtype=dtype)
    engine = ShardedCollection.of if config.engine == "dlrm" else _torchrec(config)
    model = materialize(parallelize(model, placed, exchange, engine), device)
    net = model if world.size == 1 else ParallelModel(model, exchange, world.group)
    return Built(model, net, placed)


def optimizer_of(config: TrainConfig, built: Built) -> Optimizer:
    """Return the optimizer of a run, of those parameters that this process keeps."""
    total = sum(prod(whole.shape) for whole in state.model_wholes(built.model).values())
    optimizer = config.optim.build(parameter_groups(built.model), total=total)
    tables = [module for module in built.model.modules() if isinstance(module, FusedCollection)]
    if tables:
        group = optimizer.param_groups[0]

        def before(*_: object) -> None:
            for collection in tables:
                collection.set_lr(group["lr"])

        def after(*_: object) -> None:
            for collection in tables:
                collection.step()

        built.net.register_forward_pre_hook(before)
        optimizer.register_step_post_hook(after)
    return optimizer


def pooling(dataset: Dataset) -> dict[str, float]:
    """Return the mean length of the lists of each feature; none where there are no lists."""
    split = dataset.split("train")
    if split.lists is None or len(split) == 0:
        return {}
    names = [feature.name for feature in dataset.schema.list_features]
    ends = split.lists.offsets[: min(len(split), MEASURED_ROWS) * len(names) + 1]
    lengths = np.diff(ends).reshape(-1, len(names)).mean(axis=0)
    return dict(zip(names, map(float, lengths), strict=True))


def plan_of(
    config: TrainConfig, schema: Schema, world: int, pooling: Mapping[str, float] | None = None
) -> Plan:
    """Return where the tables of a run are on so many processes; arguments as for `build`.

    Raises:
        PlanError: They do not fit.

    """
    with torch.device("meta"):
        model = untrained(config, schema, "fp32")
    return _planned(config, model, world, pooling)


def untrained(config: TrainConfig, schema: Schema, dtype: ComputeDtype) -> nn.Module:
    """Return the model of a run, whose tables have no memory yet."""
    model = config.model.build(schema, dtype)
    if schema.task == "regression":
        return Standardized(model, schema.num_labels)
    return model


def _planned(
    config: TrainConfig, model: nn.Module, world: int, pooling: Mapping[str, float] | None
) -> Plan:
    """Return where the tables of a model are, which have no memory yet."""
    memory = config.parallel.device_memory
    return plan(
        contents(model, config.optim.name, pooling).tables,
        world,
        sharding=config.parallel.sharding,
        memory_bytes=int(quantity(memory, "B", "parallel.device_memory")) if memory else None,
        batch_size=config.loader.batch_size,
    )


def _torchrec(config: TrainConfig) -> Engine:
    """Return what makes TorchRec's collections, whose optimizers are fused into them."""
    # It takes long to import, and may be missing.
    from dlrm.parallel.torchrec.collection import TorchRecCollection

    if config.average.enabled:
        raise ConfigError(
            "with the engine torchrec average.share and average.decay must be 0: it keeps no mean"
        )
    if config.clip:
        # Tables are updated in the backward pass, before all gradients are known.
        raise ConfigError(f"clip is {config.clip}: with the engine torchrec it must be 0")
    if (dtype := config.parallel.exchange_dtype) != "fp32":
        raise ConfigError(
            f"parallel.exchange_dtype is {dtype}: with the engine torchrec it must be fp32"
        )
    chosen = config.parallel.sharding == "auto"
    return partial(TorchRecCollection.of, optimizer=fused(config.optim), chosen=chosen)
