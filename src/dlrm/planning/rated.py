"""Operators of a described device, at the rates that it is said to have: nothing is faster."""

from torch import nn

from dlrm.nn.embedding import Storage
from dlrm.nn.mlp import MLP
from dlrm.planning.arithmetic import Arithmetic
from dlrm.planning.device import Device, dense_update_bytes, embedding_bytes
from dlrm.planning.simulate import Curve, Operators, Rows
from dlrm.planning.tables import Contents

READ_BYTES: dict[Storage, int] = {"fp32": 4, "split": 2, "bf16": 2, "bf16_nearest": 2}
"""Storage -> bytes of a number that a lookup reads."""
ROUTED_BYTES = 16
"""Of a number of a vector, read and written to be put in order, there and back."""


def operators(
    device: Device, cost: Arithmetic, kept: Contents, model: nn.Module, *, storage: Storage,
    optimizer: str,
) -> Operators:  # fmt: skip
    """Return the operators of a described device.

    Args:
        device: At its full rates.
        cost: Of a sample.
        kept: What the model keeps.
        model: Whose bottom MLP, if it has one, is computed while vectors are on their way; on any
            device, `meta` included.
        storage: Of the tables.
        optimizer: Name of the optimizer, see `dlrm.optim.find`.

    """
    below = bottom_flops(model)
    number, row = embedding_bytes(storage, optimizer)
    dim = max((table.dim for table in kept.tables), default=1)
    read = READ_BYTES[storage]

    def rows(number_bytes: float, row_bytes: float) -> Rows:
        whole = dim * number_bytes + row_bytes
        curve = Curve(((1.0, whole / device.memory_bandwidth),))
        return Rows(curve, dim, row_bytes / whole)

    moved = 4 * cost.activations_bytes / device.memory_bandwidth
    update = dense_update_bytes(kept, optimizer)
    routing = rows(ROUTED_BYTES, 0.0)
    return Operators(
        bottom=Curve(((1.0, below / device.flops),)),
        top=Curve(((1.0, max(0.0, cost.flops - below) / device.flops + moved),)),
        dense_update_s=update / device.memory_bandwidth,
        lookup=rows(read, 0.0),
        update=rows(number - read, row),
        routing={"table": routing, "column": routing, "row": routing},
    )


def bottom_flops(model: nn.Module) -> float:
    """Return the operations of a sample in the bottom MLP, forwards and backwards."""
    bottom = getattr(model, "bottom", None)
    if not isinstance(bottom, MLP):
        return 0.0
    weights = [layer.weight.numel() for layer in bottom.linears()]
    # Nobody asks for the gradient of the dense features.
    return 2.0 * (3 * sum(weights) - weights[0])
