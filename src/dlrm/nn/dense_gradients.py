"""Gradients of tables as large as the tables, for optimizers that know no others.

The backward pass leaves `(ids, grad)` of the looked-up rows as a sparse `weight.grad`, which most
optimizers of torch refuse. A dense one costs time and memory by the rows of the table instead of
those of the batch.
"""

from typing import TypeVar

from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.embedding import collections_of

M = TypeVar("M", bound=nn.Module)


def dense_gradients(model: M) -> M:
    """Let the tables of a model, which have memory, get dense gradients, and return it.

    Raises:
        ConfigError: Tables are not stored in float32, to which torch's optimizers would do harm.

    """
    for collection in collections_of(model):
        if collection.storage != "fp32":
            raise ConfigError(
                f"{collection.names[0]}: its table is stored as {collection.storage}, which "
                "optimizers of torch round away: take those of dlrm.optim, or storage fp32"
            )
        for weight in collection.parameters():
            weight.register_post_accumulate_grad_hook(_dense)
    return model


def _dense(weight: Tensor) -> None:
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()
