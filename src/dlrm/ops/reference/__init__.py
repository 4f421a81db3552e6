"""Kernels in plain torch: what every other backend is tested against.

Legend: R rows of the stacked tables, D embedding dimension, L looked-up rows, G bags, B batch,
T tables, F vectors that interact. How tables can be stored is told in `storage`.
"""

from dlrm.ops.reference.layers import bce, dot_interaction, relu_gradient
from dlrm.ops.reference.lookup import lookup, pooled_lookup, pooled_ranges, rows_of
from dlrm.ops.reference.updates import (
    adagrad_update,
    adam_update,
    aggregate,
    dense_adagrad,
    dense_adam,
    dense_sgd,
    rowwise_adagrad_update,
    sgd_update,
)

__all__ = [
    "adagrad_update",
    "adam_update",
    "aggregate",
    "bce",
    "dense_adagrad",
    "dense_adam",
    "dense_sgd",
    "dot_interaction",
    "lookup",
    "pooled_lookup",
    "pooled_ranges",
    "relu_gradient",
    "rows_of",
    "rowwise_adagrad_update",
    "sgd_update",
]
