"""What a sample costs: operations of matrix products, and what the backward pass keeps for itself.

A model on torch's `meta` device goes through a step without computing anything, while torch counts.
Tables stand aside: what they cost follows from their plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from dlrm.batch import Batch, Jagged
from dlrm.nn.embedding import Block, Collection, Embeddings
from dlrm.nn.mlp import MLP
from dlrm.schema import Schema

SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Of one sample."""

    flops: float
    """Multiplications and additions of matrix products, forwards and backwards."""
    forward_flops: float
    """Those forwards alone."""
    activations_bytes: float
    """Numbers that the forward pass keeps for the backward pass, at four bytes each."""


def arithmetic(model: nn.Module, schema: Schema) -> Arithmetic:
    """Return what a sample costs in training.

    Args:
        model: Built on the `meta` device; of no other use afterwards.
        schema: That it was built for.

    """
    simplify(model)
    # What does not grow with the batch, such as parameters that are kept, drops out.
    once, twice = (_count(model, schema, size) for size in (SAMPLES, 2 * SAMPLES))
    flops, forward, kept = ((b - a) / SAMPLES for a, b in zip(once, twice, strict=True))
    return Arithmetic(flops, forward, 4 * kept)


def _count(model: nn.Module, schema: Schema, size: int) -> tuple[int, int, int]:
    """Return operations of a step and of its forward pass, and the numbers that this keeps."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Several views of a tensor keep it once.
        base = tensor if tensor._base is None else tensor._base
        kept[id(base)] = base
        return tensor

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        batch = empty_batch(schema, size)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(batch)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return counter.get_total_flops(), forward, sum(tensor.numel() for tensor in kept.values())


class _SingleIds(Jagged):
    """Lists of one id each, which nobody needs to read."""

    @classmethod
    def empty(cls, count: int) -> "_SingleIds":
        """Return so many lists without numbers."""
        return cls(torch.empty(count, dtype=torch.int32), torch.empty(count + 1, dtype=torch.int64))

    def columns(self, features: Sequence[int], count: int) -> "_SingleIds":
        """Return the lists of some features of each sample alone; see `Jagged.columns`."""
        return self.empty(len(self.values) // count * len(features))


def empty_batch(schema: Schema, size: int) -> Batch:
    """Return a batch of so many samples without numbers, whose lists have one id each."""
    lists = size * len(schema.list_features)
    return Batch(
        dense=torch.empty(size, len(schema.dense)),
        ids=torch.empty(size, len(schema.one_hot_features), dtype=torch.int32),
        labels=torch.empty(size, schema.num_labels),
        lists=_SingleIds.empty(lists) if lists else None,
    )


def simplify(model: nn.Module) -> None:
    """Let tables return vectors of nothing, and leave out of MLPs what multiplies no matrices."""
    for module in model.modules():
        if isinstance(module, Embeddings):
            module.checked_ids = lambda block, starts=None: block.ids
            # Block by block, since what looks up several at once needs the weight itself.
            module._look_up = partial(Embeddings._look_up, module)
        if isinstance(module, Collection):
            module.pooled = partial(_pooled, module)
            module.vectors = partial(_vectors, module.dim)
        if isinstance(module, MLP):
            # Autocast, which the other ways through it ask, knows no such device.
            module.dtype, module.norms, module.dropout = "bf16", None, 0.0


def _pooled(tables: Collection, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
    features = len(tables.layout.groups[block.group])
    lists = block.ids.numel() if block.offsets is None else block.offsets.shape[0] - 1
    shape = (lists // max(features, 1), features, tables.dim)
    return block.ids.new_empty(shape, dtype=torch.float32).requires_grad_()


def _vectors(dim: int, block: Block) -> Tensor:
    return block.ids.new_empty(*block.ids.shape, dim, dtype=torch.float32).requires_grad_()
