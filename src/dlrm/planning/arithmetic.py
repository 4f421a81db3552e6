"""What a sample costs, counted by torch: operations, calls, bytes, numbers that are kept.

A model on torch's `meta` device goes through a step without computing anything, while torch counts.
Tables stand aside: what they cost follows from their shapes. Everything is counted at two sizes of
batches; what does not grow with the batch, such as parameters that are kept, is told apart so.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dlrm.batch import Batch, Jagged
from dlrm.nn.embedding import Block, Collection, Embeddings
from dlrm.nn.mlp import MLP
from dlrm.planning.stages import Watched
from dlrm.planning.work import Work
from dlrm.schema import Schema

SAMPLES = 64

Stage = tuple[str, str]
"""A stage of a step and its phase, see `dlrm.planning.stages`."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Costs of one sample."""

    flops: float
    """Multiplications and additions of matrix products, forwards and backwards."""
    forward_flops: float
    """FLOP of the forward pass alone."""
    activations_bytes: float
    """Numbers that the forward pass keeps for the backward pass, at four bytes each."""


def arithmetic(model: nn.Module, schema: Schema) -> Arithmetic:
    """Return what a sample costs in training, of a model on the `meta` device, spoilt by it."""
    once, twice = _counts(model, schema)
    saved = (twice.saved - once.saved) / SAMPLES
    forward = (twice.forward_flops - once.forward_flops) / SAMPLES
    return Arithmetic((twice.total_flops - once.total_flops) / SAMPLES, forward, 4 * saved)


def counted(model: nn.Module, schema: Schema, batch_size: float) -> dict[Stage, Work]:
    """Return the work of the stages of a model, tables aside; arguments as for `arithmetic`."""
    once, twice = _counts(model, schema)
    works: dict[Stage, Work] = {}
    for stage, counts in once.stages.items():
        calls, bytes_, flops = (
            a + (b - a) * (batch_size / SAMPLES - 1)
            for a, b in zip(counts, twice.stages[stage], strict=True)
        )
        works[stage] = Work(calls=calls, scalar_flops=flops, stream_bytes=max(0.0, bytes_))
    return works


def _counts(model: nn.Module, schema: Schema) -> tuple["_Counter", "_Counter"]:
    """Return what is counted in a step of `SAMPLES` samples, and in one of twice as many."""
    _simplify(model)
    counters = _Counter(), _Counter()
    for counter, size in zip(counters, (SAMPLES, 2 * SAMPLES), strict=True):
        counter.step(model, empty_batch(schema, size))
    return counters


class _Counter(TorchDispatchMode):
    """Adds up what a step takes: in all, and calls, bytes and operations of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[Stage, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self.forward_flops = self.total_flops = self.saved = 0
        self._flops = FlopCounterMode(display=False)
        self._stage: Stage | None = None
        self._before = 0

    def step(self, model: nn.Module, batch: Batch) -> None:
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            # Several views of a tensor keep it once.
            base = tensor if tensor._base is None else tensor._base
            saved[id(base)] = base
            return tensor

        watched = Watched(model)
        with torch.device("meta"), self._flops, self, watched.watching(self):
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                logits = model(batch)
            self.forward_flops = self._flops.get_total_flops()
            logits.sum().backward()
        watched.forget()
        self.total_flops = self._flops.get_total_flops()
        self.saved = sum(tensor.numel() for tensor in saved.values())

    def enter(self, stage: str, phase: str) -> None:
        self._stage = (stage, phase)
        self._before = self._flops.get_total_flops()

    def leave(self, stage: str, phase: str) -> None:
        self.stages[stage, phase][2] += self._flops.get_total_flops() - self._before
        self._stage = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # Views move nothing.
        if self._stage is not None and not func.is_view:
            counts = self.stages[self._stage]
            counts[0] += 1
            counts[1] += sum(
                leaf.numel() * leaf.element_size()
                for leaf in tree_leaves((args, kwargs, out))
                if isinstance(leaf, Tensor)
            )
        return out


class _SingleIds(Jagged):
    """Lists of one id each, which nobody needs to read."""

    @classmethod
    def empty(cls, count: int) -> "_SingleIds":
        """Return so many lists without numbers."""
        return cls(
            torch.empty(count, dtype=torch.int32, device="meta"),
            torch.empty(count + 1, dtype=torch.int64, device="meta"),
        )

    def columns(self, features: Sequence[int], count: int) -> "_SingleIds":
        """Return the lists of some features of each sample alone; see `Jagged.columns`."""
        return self.empty(len(self.values) // count * len(features))


def empty_batch(schema: Schema, size: int) -> Batch:
    """Return a batch of so many samples without numbers, whose lists have one id each."""
    lists = size * len(schema.list_features)
    with torch.device("meta"):
        return Batch(
            dense=torch.empty(size, len(schema.dense)),
            ids=torch.empty(size, len(schema.one_hot_features), dtype=torch.int32),
            labels=torch.empty(size, schema.num_labels),
            lists=_SingleIds.empty(lists) if lists else None,
        )


def _simplify(model: nn.Module) -> None:
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
