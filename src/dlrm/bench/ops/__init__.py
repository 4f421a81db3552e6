"""Single operators of a training step, each measured by itself over sweeps of settings."""

from dlrm.bench.ops.dense_update import DENSE_UPDATE
from dlrm.bench.ops.exchange import EXCHANGE
from dlrm.bench.ops.interaction import INTERACTION
from dlrm.bench.ops.loader import LOADER
from dlrm.bench.ops.lookup import LOOKUP
from dlrm.bench.ops.loss import LOSS
from dlrm.bench.ops.mlp import MLP_PASSES
from dlrm.bench.ops.operator import Operator
from dlrm.bench.ops.update import UPDATE

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        LOOKUP, UPDATE, INTERACTION, MLP_PASSES, LOSS, DENSE_UPDATE, LOADER, EXCHANGE,
    )
}  # fmt: skip
"""Name -> operator, in the order of a step."""
