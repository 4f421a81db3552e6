"""The kernels in C++ for the CPU (`native/`), compiled at first use; see `build`.

The functions are those of `reference`, where their arguments are described. They take contiguous
tensors of the types that `DTYPES` names, and trust that rows came from `rows_of`: a row out of
range would read or write outside the table.
"""

from dlrm.ops.cpu.layers import bce, dot_interaction, relu_gradient
from dlrm.ops.cpu.library import DTYPES, available, instruction_set, use
from dlrm.ops.cpu.lookup import lookup, pooled_lookup, pooled_ranges, rows_of
from dlrm.ops.cpu.updates import (
    adagrad_update,
    adam_update,
    dense_adagrad,
    dense_adam,
    dense_sgd,
    rowwise_adagrad_update,
    sgd_update,
    takes,
)

__all__ = [
    "DTYPES",
    "adagrad_update",
    "adam_update",
    "available",
    "bce",
    "dense_adagrad",
    "dense_adam",
    "dense_sgd",
    "dot_interaction",
    "instruction_set",
    "lookup",
    "pooled_lookup",
    "pooled_ranges",
    "relu_gradient",
    "rows_of",
    "rowwise_adagrad_update",
    "sgd_update",
    "takes",
    "use",
]
