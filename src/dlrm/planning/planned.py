"""A run before anything runs: where its tables would lie, what it would take, and whether it fits.

What does not fit is asked again with one thing changed at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from dlrm.errors import ConfigError, PlanError
from dlrm.nn import precision
from dlrm.nn.tables import TablesConfig
from dlrm.optim import find
from dlrm.planning.arithmetic import Arithmetic, arithmetic
from dlrm.planning.footprint import Data, Footprint, footprint
from dlrm.planning.placement import Plan, Sharding, plan
from dlrm.planning.tables import Contents, contents
from dlrm.planning.traffic import Traffic, traffic
from dlrm.terminal import human_bytes

if TYPE_CHECKING:
    from dlrm.training.config import TrainConfig

MOST_DEVICES = 4096
"""Most devices that are tried to find how many would do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Equal devices, one process on each."""

    size: int = 1
    memory_bytes: int
    """Memory of each device."""
    sharding: Sharding = "auto"
    number_bytes: int = 4
    """Bytes of a number of a vector on its way to another device."""
    libraries_bytes: int | None = None
    """Memory of a process that has imported everything, see `footprint`."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The memory, disk and exchanges that a run would need."""

    config: "TrainConfig"
    data: Data
    world: World
    contents: Contents
    cost: Arithmetic
    footprint: Footprint
    """Where the tables do not fit, with an equal share of them on each device."""
    plan: Plan | None
    """None where the tables do not fit."""
    traffic: Traffic | None
    reason: str | None
    """Why the run does not fit; None where it does."""

    @property
    def fits(self) -> bool:
        """Whether every device has room for its process."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A run with one thing changed."""

    flag: str
    """The words of the change on the command line."""
    what: str
    """The change, in words."""
    process_bytes: int
    """Memory that the fullest device then needs."""
    fits: bool


def planned(config: "TrainConfig", data: Data, world: World) -> Planned:
    """Return what a run would come to.

    Raises:
        ConfigError: The model cannot be built for these data.

    """
    with torch.device("meta"):
        model = config.model.build(data.schema, precision.resolve(config.precision))
    sizes = contents(model, config.optim.name, data.pooling)
    cost = arithmetic(model, data.schema)

    def takes(tables_bytes: int) -> Footprint:
        return footprint(
            config,
            data,
            sizes,
            cost,
            tables_bytes=tables_bytes,
            world=world.size,
            libraries_bytes=world.libraries_bytes,
        )

    rest = takes(0).process_bytes
    share = -(-sizes.tables_bytes // world.size)
    placement, reason = None, _too_large(sizes, world, rest)
    if reason is None:
        try:
            placement = plan(
                sizes.tables,
                world.size,
                memory_bytes=world.memory_bytes - rest,
                sharding=world.sharding,
                batch_size=config.loader.batch_size,
            )
        except PlanError as refused:
            reason = f"{refused}; each also holds {human_bytes(rest)} besides tables"
    sent = None
    if placement is not None:
        sent = traffic(placement, number_bytes=world.number_bytes, dense_bytes=sizes.dense_bytes)
    fullest = share if placement is None else max(placement.memory_bytes)
    return Planned(config, data, world, sizes, cost, takes(fullest), placement, sent, reason)


def _too_large(sizes: Contents, world: World, rest: int) -> str | None:
    """Say that the devices have too little memory, with the sums; None where it is enough."""
    left, device = world.memory_bytes - rest, human_bytes(world.memory_bytes)
    if left <= 0:
        return f"a process needs {human_bytes(rest)} besides tables, a device has {device}"
    if sizes.tables_bytes <= world.size * left:
        return None
    devices = f"a device of {device} has" if world.size == 1 else f"{world.size} of {device} have"
    return (
        f"tables need {human_bytes(sizes.tables_bytes)} with optimizer state, {devices} "
        f"{human_bytes(world.size * left)} for them, besides {human_bytes(rest)} for the rest of "
        "each process"
    )


def alternatives(base: Planned) -> list[Alternative]:
    """Return what a run would need with one thing changed at a time, where that is possible."""
    changes = []
    for flag, what, config in _changes(base.config):
        try:
            changed = planned(config, base.data, base.world)
        except ConfigError:
            continue
        if changed.contents.tables_bytes < base.contents.tables_bytes:
            size = changed.footprint.process_bytes
            changes.append(Alternative(flag, what, size, changed.fits))
    for size in _sizes(base.world.size):
        world = replace(base.world, size=size)
        changed = planned(base.config, base.data, world)
        if changed.fits:
            flag = f"--procs {size}"
            needs = changed.footprint.process_bytes
            changes.append(Alternative(flag, f"{size} devices", needs, fits=True))
            break
    return [*changes, *_larger(base)]


def _changes(config: "TrainConfig") -> Iterator[tuple[str, str, "TrainConfig"]]:
    model = config.model
    dim = getattr(model, "dim", 1)
    if dim > 1:
        changed = replace(config, model=replace(model, dim=dim // 2))
        yield f"--model.dim {dim // 2}", f"rows of {dim // 2} numbers instead of {dim}", changed
    # A model of one's own may not say how its tables are stored.
    if hasattr(model, "tables"):
        for flag, what, tables in _table_changes(model.tables):
            yield flag, what, replace(config, model=replace(model, tables=tables))
    if find(config.optim.name).declaration.state_per_table_number:
        changed = replace(config, optim=replace(config.optim, name="rowwise_adagrad"))
        yield "--optim.name rowwise_adagrad", "one number of state a row", changed


def _table_changes(tables: TablesConfig) -> Iterator[tuple[str, str, TablesConfig]]:
    for storage, what in (
        ("bf16", "tables in bfloat16, updates rounded at random"),
        ("split", "tables in two halves of 16 bits"),
    ):
        yield f"--model.tables.storage {storage}", what, replace(tables, storage=storage)
    for compression, what in (
        ("qr", "quotient and remainder tables"),
        ("hash", "ids that share rows"),
        ("mixed_dim", "short rows in large tables"),
    ):
        try:
            changed = replace(tables, compression=compression)
        except ConfigError:
            continue
        yield f"--model.tables.compression {compression}", what, changed


def _sizes(world: int) -> Iterator[int]:
    size = world + 1
    while size <= MOST_DEVICES:
        yield size
        size = size + 1 if size < 16 else size * 5 // 4


def _larger(base: Planned) -> Iterator[Alternative]:
    """Yield devices that are large enough."""
    unlimited = planned(base.config, base.data, replace(base.world, memory_bytes=1 << 60))
    if unlimited.fits:
        need = unlimited.footprint.process_bytes
        size = -(-need // 10**9)
        what = f"devices of {size} GB"
        yield Alternative(f"--device-memory {size}GB", what, need, fits=True)
