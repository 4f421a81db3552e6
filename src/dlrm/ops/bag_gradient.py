"""Gradients of weights whose rows were added up in bags: all rows of a bag share one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.ops.reference.updates import of_lookups

_aten = torch.ops.aten
_HANDED_ON = (_aten.detach, _aten.clone, _aten.new_empty_strided)
"""What autograd does to a gradient before it is `weight.grad`."""


@dataclass(slots=True)
class Bags:
    """Rows of a weight that were looked up, and the gradients of the bags that they are in."""

    shape: torch.Size
    """(R, D) of the weight."""
    rows: Tensor
    """(L,) int64, with duplicates."""
    grad: Tensor
    """(G, D), of each bag."""
    bags: Tensor
    """(L,) int32, the bag of each looked-up row."""
    scale: Tensor | None = None
    """(L,), the factor of each looked-up row, or None."""
    sparse: Tensor | None = None
    """The sparse gradient that holds instead of these, once somebody has asked for it."""


class BagGradient(Tensor):
    """A sparse gradient (R, D) of which only that of each bag is written down.

    Autograd leaves it as `weight.grad`, and the optimizers of `dlrm.optim` read its `bags`.
    Whatever else is done with it is done with the uncoalesced sparse tensor that it stands for. Its
    values (L, D) are written when they are first asked for; from then on it is what is applied,
    so that changes in place, such as clipping, are not lost.
    """

    bags: Bags
    # For autograd it is strided, or it would be taken apart on its way.
    is_sparse = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    @staticmethod
    def __new__(cls, bags: Bags) -> "BagGradient":
        """Return the gradient that these make up."""
        grad = bags.grad
        self = Tensor._make_wrapper_subclass(cls, bags.shape, dtype=grad.dtype, device=grad.device)
        self.bags = bags
        return self

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let Python have the sparse tensor."""
        plain, named = _plain(args, kwargs)
        return func(*plain, **named)

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let autograd hand it on as it is, and add it to others as the sparse tensor."""
        first = args[0]
        if func.overloadpacket in _HANDED_ON:
            return cls(_copy(first.bags))
        if func.overloadpacket is _aten.copy_ and type(first) is type(args[1]):
            first.bags = _copy(args[1].bags)
            return first
        plain, named = _plain(args, kwargs)
        result = func(*plain, **named)
        return first if result is plain[0] else result


def _plain(
    args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return pytree.tree_map_only(BagGradient, _sparse, (tuple(args), dict(kwargs or {})))


def _sparse(grad: BagGradient) -> Tensor:
    bags = grad.bags
    if bags.sparse is None:
        values = of_lookups(bags.grad, bags.bags, bags.scale)
        bags.sparse = sparse_gradient(bags.rows, values, bags.shape)
    return bags.sparse


def _copy(bags: Bags) -> Bags:
    return replace(bags, sparse=None if bags.sparse is None else bags.sparse.clone())
