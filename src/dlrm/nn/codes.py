"""Rows of numbers as codes of few bits, with a scale and a bias for each row.

    code = round((v - bias) / scale)       from 0 to 2^bits - 1
    v   ~= code * scale + bias             bias = min v, scale = (max v - min v) / (2^bits - 1)

A packed row is one piece of memory:

    (codes, two or four in a byte with the first in its lowest bits) (scale) (bias)

That is also the layout of torch's quantised EmbeddingBag. 16 bits are float16 itself, without scale
and bias.

Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables", arXiv 1911.02079.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Bits = Literal[16, 8, 4, 2]
Scales = Literal["fp32", "fp16"]
Codes = Literal["int8", "int4", "int2"]

BITS: dict[str, Bits] = {"fp16": 16, "int8": 8, "int4": 4, "int2": 2}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def scales_of(bits: Bits) -> Scales:
    """Return the type of scale and bias where none is asked for: that of torch's kernels."""
    return "fp32" if bits == 8 else "fp16"


def row_bytes(dim: int, bits: Bits, scales: Scales | None = None) -> int:
    """Return the bytes that a packed row of D numbers takes."""
    if bits == 16:
        return 2 * dim
    return -(-dim * bits // 8) + 2 * DTYPES[scales or scales_of(bits)].itemsize


def rounded(values: Tensor, bits: Bits, scales: Scales | None = None) -> Tensor:
    """Return the numbers that the codes of rows stand for.

    Args:
        values: (..., D) float32; those that are not finite make their row no numbers.
        bits: Bits of a code.
        scales: Type of scale and bias; None for `scales_of`.

    """
    codes, scale, bias = _codes(values, bits, DTYPES[scales or scales_of(bits)])
    return codes.mul_(scale.float()).add_(bias.float())


def pack(values: Tensor, bits: Bits, scales: Scales) -> tuple[Tensor, int]:
    """Return packed rows (R, bytes) of values (R, D), and the first that has no codes, or -1."""
    if bits == 16:
        half = values.half()
        return half.view(torch.uint8), _first(half.isfinite().all(dim=1))
    codes, scale, bias = _codes(values, bits, DTYPES[scales])
    wrong = _first((scale.isfinite() & bias.isfinite()).flatten())
    codes = codes.nan_to_num_().to(torch.uint8)
    if (per_byte := 8 // bits) > 1:
        codes = nn.functional.pad(codes, (0, -codes.shape[1] % per_byte))
        codes = _joined(codes.unflatten(1, (-1, per_byte)), bits)
    return torch.cat([codes, scale.view(torch.uint8), bias.view(torch.uint8)], dim=1), wrong


def unpack(packed: Tensor, dim: int, bits: Bits, scales: Scales) -> Tensor:
    """Return the numbers (R, D) of packed rows (R, bytes)."""
    if bits == 16:
        return packed.contiguous().view(torch.float16).float()
    dtype = DTYPES[scales]
    codes, tail = packed.tensor_split([-2 * dtype.itemsize], dim=1)
    scale, bias = (
        tail.clone(memory_format=torch.contiguous_format).view(dtype).float().split(1, dim=1)
    )
    if bits < 8:
        shifts = range(0, 8, bits)
        parts = [(codes >> shift) & (2**bits - 1) for shift in shifts]
        codes = torch.stack(parts, dim=2).flatten(1)[:, :dim]
    return codes.float() * scale + bias


def _joined(codes: Tensor, bits: int) -> Tensor:
    """Return bytes (R, N) of codes (R, N, codes a byte), the first in the lowest bits."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    return (codes << shifts).sum(dim=2, dtype=torch.uint8)


def _codes(values: Tensor, bits: Bits, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes (..., D) as floats, and scale and bias (..., 1)."""
    most = 2**bits - 1
    least, largest = torch.aminmax(values, dim=-1, keepdim=True)
    bias = least.to(dtype)
    scale = ((largest - bias.float()) / most).to(dtype)
    # A row of equal numbers: all codes are 0.
    scale = torch.where(scale <= 0, 1.0, scale)
    codes = ((values - bias.float()) / scale.float()).round_().clamp_(0, most)
    return codes, scale, bias


def _first(right: Tensor) -> int:
    """Return the first row that is not right (R,), or -1."""
    return -1 if right.all() else int(right.logical_not().nonzero()[0])
