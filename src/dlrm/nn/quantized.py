"""Quantised tables: rows of 16, 8, 4 or 2 bits a number, for a model that is trained already.

How rows become codes, and how they lie in memory, says `dlrm.nn.codes`; 16 bits are float16. The
layout is that of torch's quantised EmbeddingBag, whose kernels do the lookups on a CPU.
"""

import copy
from bisect import bisect_right
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.codes import BITS, Bits, pack, row_bytes, scales_of, unpack
from dlrm.nn.embedding import EmbeddingCollection, Layout, StackedTables, add_up
from dlrm.nn.qat import QATEmbeddings

TableDtype = Literal["fp16", "bf16", "int8", "int4", "int2"]
"""What `quantize` makes of tables."""

M = TypeVar("M", bound=nn.Module)

_ROWS = 1 << 18
"""Rows that are quantised at a time, so that large tables need no second copy in float32."""


class QuantizedCollection(StackedTables):
    """T tables of dimension D with few bits a number, stacked; only for inference.

    Fresh ones hold zeros: `of` quantises trained tables, `load_state_dict` takes saved ones.
    """

    packed: Tensor
    """(R, bytes of a row) uint8"""

    def __init__(self, layout: Layout, dim: int, *, bits: Bits = 8):
        super().__init__(layout, dim)
        self.bits: Bits = bits
        width = row_bytes(dim, bits)
        self.register_buffer("packed", torch.zeros(sum(layout.sizes), width, dtype=torch.uint8))

    @classmethod
    def of(cls, collection: EmbeddingCollection, bits: Bits = 8) -> "QuantizedCollection":
        """Quantise trained tables; they stay as they are.

        Raises:
            ConfigError: A table has numbers that are not finite or too large for the scales; names
                its feature.

        """
        quantized = cls(collection.layout, collection.dim, bits=bits)
        quantized.packed = quantized.packed.to(collection.weight.device)
        first = 0
        for part in collection.weight.detach().split(_ROWS):
            packed, wrong = pack(part.float(), bits)
            if wrong >= 0:
                t = bisect_right(quantized.starts, first + wrong) - 1
                table = collection.layout.tables[t].name
                raise ConfigError(
                    f"{table}: row {first + wrong - quantized.starts[t]} of its table "
                    "holds numbers that are not finite or too large for "
                    + ("float16" if bits == 16 else f"fp{8 * scales_of(bits).itemsize} scales")
                )
            quantized.packed[first : first + len(part)] = packed
            first += len(part)
        return quantized

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows (..., D); see `StackedTables.lookup`.

        The gradient of what is returned raises a ConfigError: these tables cannot be trained.
        """
        flat = rows.flatten()
        if _operator(self.bits) is None or not flat.is_cpu:
            values = self._unpacked(flat)
        else:
            values = self._sums(flat, torch.arange(len(flat) + 1), None)
        return _frozen(values.view(*rows.shape, self.dim))

    def table(self, t: int) -> Tensor:
        """Return the (num_embeddings, D) numbers that table t stands for, in float32."""
        start = self.starts[t]
        return unpack(self.packed[start : start + self.layout.sizes[t]], self.dim, self.bits)

    def pooled_rows(
        self, rows: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the sums (G, D) of bags of rows; see `lookup` for their gradient."""
        return _frozen(self._sums(rows, offsets, per_sample_weights))

    def _sums(self, rows: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
        operator = _operator(self.bits)
        weights = None if weights is None else weights.detach().float().contiguous()
        if operator is None or not rows.is_cpu or not len(rows):
            values = self._unpacked(rows)
            values = values if weights is None else values * weights[:, None]
            return add_up(values, offsets, 1)[:, 0]
        sums = operator(
            self.packed, rows, offsets, False, 0, per_sample_weights=weights,
            include_last_offset=True,
        )  # fmt: skip
        # The last byte of a row may have room for more numbers than there are.
        return sums[:, : self.dim]

    def _unpacked(self, rows: Tensor) -> Tensor:
        return unpack(self.packed.index_select(0, rows), self.dim, self.bits)


def _operator(bits: Bits) -> Any:
    """Return torch's kernel for lookups on a CPU, or None where there is none."""
    name = {8: "byte", 4: "4bit", 2: "2bit"}.get(bits, "")
    return getattr(torch.ops.quantized, f"embedding_bag_{name}_rowwise_offsets", None)


def quantize(module: M, to: TableDtype) -> M:
    """Return a copy of embeddings, or of a model, with tables of fewer bits; for inference.

    Where a scale and a bias would take more than the codes save, tables stay as they are. Tables
    that were trained for codes (`dlrm.nn.qat`) become those codes, which changes no vector.

    The module stays as it is.

    Raises:
        ConfigError: Not one of the tables would become smaller; names the first. Or they were
            trained for other codes.

    """
    smaller: dict[int, Any] = {}
    unchanged = []
    trained_for_codes = {
        id(child.tables): child for child in module.modules() if isinstance(child, QATEmbeddings)
    }
    for collection in module.modules():
        if not isinstance(collection, EmbeddingCollection):
            continue
        qat = trained_for_codes.get(id(collection))
        if qat is not None and qat.codes != to:
            raise ConfigError(
                f"{qat.names[0]}: its table was trained for {qat.codes} codes, not for {to}"
            )
        converted = _converted(collection, to)
        if converted is None:
            unchanged.append(collection)
        else:
            smaller[id(collection if qat is None else qat)] = converted
    if unchanged and not smaller:
        raise ConfigError(
            f"{unchanged[0].names[0]}: rows of {unchanged[0].dim} numbers, stored as "
            f"{unchanged[0].storage}, are no smaller as {to}: keep the tables as they are"
        )
    # What the memo has is not copied: the large tables never are.
    memo = smaller | {id(collection): collection for collection in unchanged}
    return copy.deepcopy(module, memo)


def _converted(
    collection: EmbeddingCollection, to: TableDtype
) -> EmbeddingCollection | QuantizedCollection | None:
    """Return a collection with fewer bits, or None where that would not make it smaller."""
    now = collection.dim * collection.weight.itemsize
    layout, dim = collection.layout, collection.dim
    if to == "bf16":
        if now <= 2 * dim:
            return None
        return EmbeddingCollection(layout, dim, storage="bf16", weight=collection.weight)
    if row_bytes(dim, BITS[to]) >= now:
        return None
    return QuantizedCollection.of(collection, BITS[to])


def _frozen(output: Tensor) -> Tensor:
    """Return the output such that its gradient raises an error instead of getting lost."""
    if not torch.is_grad_enabled():
        return output
    return _Frozen.apply(output, torch.zeros((), requires_grad=True))


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        raise ConfigError(
            "quantised tables cannot be trained: train the model as it was before, and quantise "
            "it afterwards"
        )
