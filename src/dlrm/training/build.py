"""What a run trains: its model, on one process or many, and the optimizer."""

from dataclasses import dataclass
from math import prod

from torch import nn
from torch.optim import Optimizer

from dlrm.nn import precision
from dlrm.parallel.build import described, spread
from dlrm.parallel.device import quantity
from dlrm.parallel.exchange import WIRE, Wire
from dlrm.parallel.model import ParallelModel
from dlrm.parallel.plan import Plan, plan
from dlrm.parallel.tables import contents
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


def build(config: TrainConfig, schema: Schema, world: World) -> Built:
    """Return the model of a run, fresh.

    Raises:
        PlanError: The tables do not fit the processes' memory.

    """

    def make() -> nn.Module:
        return config.model.build(schema, precision.resolve(config.precision))

    if world.size == 1:
        model = make()
        return Built(model, model, None)
    made = plan_of(config, schema, world.size)
    wire = Wire(world.rank, world.size, world.exchange, dtype=WIRE[config.parallel.wire])
    model = spread(make, made, wire)
    return Built(model, ParallelModel(model, wire, world.group), made)


def optimizer_of(config: TrainConfig, model: nn.Module) -> Optimizer:
    """Return the optimizer of a run, of those parameters that this process keeps."""
    total = sum(prod(whole.shape) for whole in state.model_wholes(model).values())
    return config.optim.build(model.parameters(), total=total)


def plan_of(config: TrainConfig, schema: Schema, world: int) -> Plan:
    """Return where the tables of a run are on so many processes.

    Raises:
        PlanError: They do not fit.

    """
    described_model, _ = described(lambda: config.model.build(schema, "fp32"))
    memory = config.parallel.device_memory
    return plan(
        contents(described_model, config.optim.name).tables,
        world,
        sharding=config.parallel.sharding,
        memory_bytes=int(quantity(memory, "B", "parallel.device_memory")) if memory else None,
        batch_size=config.loader.batch_size,
    )
