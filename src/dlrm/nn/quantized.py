"""Quantised tables: rows of 8 or 4 bits a number, for a model that is trained already.

    code = round((v - bias) / scale)       from 0 to 2^bits - 1
    v   ~= code * scale + bias             bias = min v, scale = (max v - min v) / (2^bits - 1)

Each row has a scale and a bias of its own, which lie behind its codes, so that a lookup reads one
piece of memory:

    (codes, one byte each, or two in a byte with the first in its lower half) (scale) (bias)

That is also the layout of torch's quantised EmbeddingBag, whose kernels do the lookups on a CPU.

Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables", arXiv 1911.02079.
"""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, bags_of

Bits = Literal[8, 4]
Scales = Literal["fp32", "fp16"]
Precision = Literal["bf16", "int8", "int4"]
"""What `quantize` makes of tables."""

M = TypeVar("M", bound=nn.Module)

_ROWS = 1 << 18
"""Rows that are quantised at a time, so that large tables need no second copy in float32."""


class QuantizedCollection(Embeddings):
    """T tables of dimension D with 8 or 4 bits a number, stacked; only for inference.

    Fresh ones hold zeros: `of` quantises trained tables, `load_state_dict` takes saved ones.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        bits: Of a code.
        scales: Type of scale and bias; None for float32 with 8 bits and float16 with 4.

    """

    starts: Tensor
    """(T,) int64, the first row of each table in `packed`"""
    packed: Tensor
    """(R, bytes of a row) uint8"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        bits: Bits = 8,
        scales: Scales | None = None,
    ):
        super().__init__(rows, dim, names)
        self.bits: Bits = bits
        self.scales: Scales = scales or ("fp32" if bits == 8 else "fp16")
        self.register_buffer("starts", self.sizes.cumsum(0) - self.sizes, persistent=False)
        width = row_bytes(dim, bits, self.scales)
        self.register_buffer("packed", torch.zeros(sum(self.rows), width, dtype=torch.uint8))

    @classmethod
    def of(
        cls, collection: EmbeddingCollection, bits: Bits = 8, scales: Scales | None = None
    ) -> "QuantizedCollection":
        """Quantise trained tables; they stay as they are.

        Raises:
            ConfigError: A table has numbers that are not finite or too large for the scales; names
                its feature.

        """
        made = cls(collection.rows, collection.dim, collection.names, bits=bits, scales=scales)
        first = 0
        for part in collection.weight.detach().split(_ROWS):
            packed, wrong = _pack(part.float(), bits, _DTYPES[made.scales])
            if wrong >= 0:
                t = int(torch.searchsorted(made.starts, first + wrong, right=True)) - 1
                raise ConfigError(
                    f"{made.names[t]}: row {first + wrong - int(made.starts[t])} of its table "
                    f"holds numbers that are not finite or too large for {made.scales} scales"
                )
            made.packed[first : first + len(part)] = packed
            first += len(part)
        return made

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, factors: Tensor | None = None
    ) -> Tensor:
        """Look up the rows of each bag; see `EmbeddingCollection.forward`.

        The gradient of what is returned raises a ConfigError: these tables cannot be trained.
        """
        rows = self.rows_of(ids, offsets, self.starts).flatten()
        if offsets is None:
            offsets = torch.arange(len(rows) + 1, device=rows.device)
        return _frozen(self._pooled(rows, offsets, factors).view(-1, len(self.rows), self.dim))

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the row of each id and add nothing up: (B, T, D) when one-hot, else (L, D)."""
        rows = self.rows_of(ids, offsets, self.starts)
        apart = torch.arange(rows.numel() + 1, device=rows.device)
        return _frozen(self._pooled(rows.flatten(), apart, None).view(*rows.shape, self.dim))

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) numbers that table t stands for, in float32."""
        start = sum(self.rows[:t])
        return self._unpack(self.packed[start : start + self.rows[t]])

    def _pooled(self, rows: Tensor, offsets: Tensor, factors: Tensor | None) -> Tensor:
        operator = _operator(self.bits, self.scales)
        if operator is None or not rows.is_cpu or not len(rows):
            return self._plainly_pooled(rows, offsets, factors)
        weights = None if factors is None else factors.detach().float().contiguous()
        found = operator(
            self.packed, rows, offsets, False, 0, per_sample_weights=weights,
            include_last_offset=True,
        )  # fmt: skip
        # With 4 bits an odd dimension has one number too many.
        return found[:, : self.dim]

    def _plainly_pooled(self, rows: Tensor, offsets: Tensor, factors: Tensor | None) -> Tensor:
        """Return the sum of each bag (G, D), in plain torch: the oracle for torch's kernels."""
        values = self._unpack(self.packed.index_select(0, rows))
        if factors is not None:
            values = values * factors.detach()[:, None]
        pooled = values.new_zeros(offsets.shape[0] - 1, self.dim)
        return pooled.index_add_(0, bags_of(offsets, len(rows)), values)

    def _unpack(self, packed: Tensor) -> Tensor:
        """Return the numbers (L, D) of packed rows."""
        dtype = _DTYPES[self.scales]
        codes, tail = packed.tensor_split([-2 * dtype.itemsize], dim=1)
        scale, bias = (
            tail.clone(memory_format=torch.contiguous_format).view(dtype).float().split(1, dim=1)
        )
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1)[:, : self.dim]
        return codes.float() * scale + bias


@cache
def _operator(bits: Bits, scales: Scales) -> Any:
    """Return torch's kernel for lookups on a CPU, or None where there is none."""
    names = {
        (8, "fp32"): "embedding_bag_byte_rowwise_offsets",
        (4, "fp16"): "embedding_bag_4bit_rowwise_offsets",
    }
    return getattr(torch.ops.quantized, names.get((bits, scales), ""), None)


_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def row_bytes(dim: int, bits: Bits, scales: Scales) -> int:
    """Return the bytes that a quantised row of D numbers takes."""
    return -(-dim * bits // 8) + 2 * _DTYPES[scales].itemsize


def quantize(module: M, to: Precision) -> M:
    """Return a copy of embeddings, or of a model, with tables of fewer bits; for inference.

    Where a scale and a bias would take more than the codes save, tables stay as they are.

    Args:
        module: Stays as it is.
        to: bf16, or 8 or 4 bits a number with scale and bias a row.

    Raises:
        ConfigError: Not one of the tables would become smaller; names the first.

    """
    made: dict[int, Any] = {}
    kept = []
    for collection in module.modules():
        if not isinstance(collection, EmbeddingCollection):
            continue
        converted = _converted(collection, to)
        if converted is None:
            kept.append(collection)
        else:
            made[id(collection)] = converted
    if kept and not made:
        raise ConfigError(
            f"{kept[0].names[0]}: rows of {kept[0].dim} numbers, stored as {kept[0].storage}, "
            f"are no smaller as {to}: keep the tables as they are"
        )
    # What is found in the memo is not copied: the large tables never are.
    return copy.deepcopy(module, made | {id(each): each for each in kept})


def _converted(
    collection: EmbeddingCollection, to: Precision
) -> EmbeddingCollection | QuantizedCollection | None:
    """Return a collection with fewer bits, or None where that would not make it smaller."""
    now = collection.dim * collection.weight.itemsize
    if to == "bf16":
        if now <= 2 * collection.dim:
            return None
        rows, dim, names = collection.rows, collection.dim, collection.names
        return EmbeddingCollection(rows, dim, names, storage="bf16", weight=collection.weight)
    bits: Bits = 8 if to == "int8" else 4
    if row_bytes(collection.dim, bits, "fp32" if bits == 8 else "fp16") >= now:
        return None
    return QuantizedCollection.of(collection, bits)


def _pack(values: Tensor, bits: Bits, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return packed rows (R, bytes) of values (R, D), and the first that has no codes, or -1."""
    most = 2**bits - 1
    bias = values.amin(dim=1, keepdim=True).to(dtype)
    scale = ((values.amax(dim=1, keepdim=True) - bias.float()) / most).to(dtype)
    finite = (scale.isfinite() & bias.isfinite()).flatten()
    # A row of equal numbers: all codes are 0.
    scale = torch.where(scale > 0, scale, 1.0)
    codes = ((values - bias.float()) / scale.float()).round_().clamp_(0, most)
    wrong = -1 if finite.all() else int(finite.logical_not().nonzero()[0])
    codes = codes.nan_to_num_().to(torch.uint8)
    if bits == 4:
        codes = nn.functional.pad(codes, (0, codes.shape[1] % 2))
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return torch.cat([codes, scale.view(torch.uint8), bias.view(torch.uint8)], dim=1), wrong


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
