"""A described device, and the time of a step on several of them at the rates it is said to have.

    compute     operations of matrix products / flops
    memory      bytes of embedding rows, activations and parameters / memory bandwidth
    exchange    bytes through the busiest link / bandwidth

Nothing reaches such rates all the time: the step takes at least the longest of the three, and their
sum where nothing overlaps.
"""

from dataclasses import dataclass

from dlrm.nn.embedding import Storage
from dlrm.optim import find
from dlrm.optim.declaration import FLOAT_BYTES
from dlrm.planning.arithmetic import Arithmetic
from dlrm.planning.shards import Plan
from dlrm.planning.tables import Contents
from dlrm.planning.traffic import Traffic

STORED_BYTES: dict[Storage, int] = {
    "fp32": 4 + 4 + 4,
    "split": 2 + 4 + 4,
    "bf16": 2 + 2 + 2,
    "bf16_nearest": 2 + 2 + 2,
}
"""Storage -> bytes of a number of a row: read by the lookup, read and written by the update."""
GRADIENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Device:
    """What one of several equal devices can do."""

    flops: float
    """Operations of matrix products a second."""
    memory_bandwidth: float
    """Bytes a second to and from its memory."""
    bandwidth: float
    """Bytes a second over its link to the others, each way."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step on the busiest device."""

    compute_s: float
    memory_s: float
    exchange_s: float

    @property
    def least_s(self) -> float:
        """Where everything overlaps."""
        return max(self.compute_s, self.memory_s, self.exchange_s)

    @property
    def total_s(self) -> float:
        """Where nothing overlaps."""
        return self.compute_s + self.memory_s + self.exchange_s


def embedding_bytes(storage: Storage, optimizer: str) -> tuple[float, float]:
    """Return the bytes that a step moves for each number of a looked-up row, and for each row."""
    declaration = find(optimizer).declaration
    number = 2 * FLOAT_BYTES * declaration.state_per_table_number
    row = 2 * FLOAT_BYTES * declaration.state_per_table_row
    return STORED_BYTES[storage] + GRADIENT_BYTES + number, row


def dense_update_bytes(kept: Contents, optimizer: str) -> float:
    """Return the bytes that a step moves for the parameters that are no tables.

    They are read twice, their gradients written and read, and both updated with their state.
    """
    declaration = find(optimizer).declaration
    return kept.dense_bytes * (2 + 2 + 2 + 2 * declaration.state_per_dense_number)


def sample_bytes(plan: Plan, cost: Arithmetic, storage: Storage, optimizer: str) -> float:
    """Return the bytes of memory that a sample moves, on all devices together."""
    number, row = embedding_bytes(storage, optimizer)
    lookups = sum(table.pooling for table in plan.tables)
    # Activations and their gradients are written and read.
    return number * sum(plan.work) + row * lookups + 4 * cost.activations_bytes


def step_time(
    device: Device,
    plan: Plan,
    traffic: Traffic,
    cost: Arithmetic,
    kept: Contents,
    *,
    batch_size: int,
    storage: Storage,
    optimizer: str,
) -> StepTime:
    """Return the time of a step.

    Args:
        device: Each of the W devices.
        plan: Where the tables are.
        traffic: What that makes them send.
        cost: Of a sample.
        kept: What the model keeps.
        batch_size: Samples over all devices.
        storage: Of the tables.
        optimizer: Name of the optimizer, see `dlrm.optim.find`.

    """
    own = batch_size / plan.world
    number, row = embedding_bytes(storage, optimizer)
    per_number = number + row * sum(t.pooling for t in plan.tables) / (sum(plan.work) or 1.0)
    rows_bytes = batch_size * max(plan.work) * per_number
    dense = dense_update_bytes(kept, optimizer)
    return StepTime(
        compute_s=own * cost.flops / device.flops,
        memory_s=(rows_bytes + own * 4 * cost.activations_bytes + dense) / device.memory_bandwidth,
        exchange_s=traffic.busiest(batch_size) / device.bandwidth,
    )
