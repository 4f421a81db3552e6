"""Rows of numbers as codes of few bits, with a scale and a bias for each row.

    code = round((v - bias) / scale)       from 0 to 2^bits - 1
    v   ~= code * scale + bias             bias = min v, scale = (max v - min v) / (2^bits - 1)

A packed row is one piece of memory:

    (codes, two or four in a byte with the first in its lowest bits) (scale) (bias)

That is also the layout of torch's quantised EmbeddingBag, where scale and bias are float32 with 8
bits and float16 with fewer. 16 bits are float16 itself, without scale and bias.

Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables", arXiv 1911.02079.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Bits = Literal[16, 8, 4, 2]
Codes = Literal["int8", "int4", "int2"]

BITS: dict[str, Bits] = {"fp16": 16, "int8": 8, "int4": 4, "int2": 2}


def scales_of(bits: Bits) -> torch.dtype:
    """Return the type of scale and bias: that of torch's kernels."""
    return torch.float32 if bits == 8 else torch.float16


def row_bytes(dim: int, bits: Bits) -> int:
    """Return the bytes that a packed row of D numbers takes."""
    if bits == 16:
        return 2 * dim
    return -(-dim * bits // 8) + 2 * scales_of(bits).itemsize


def rounded(values: Tensor, bits: Bits) -> Tensor:
    """Return the numbers that the codes of rows (..., D) stand for, float32.

    Numbers that are not finite make their row no numbers.
    """
    codes, scale, bias = _codes(values, bits)
    return codes.mul_(scale.float()).add_(bias.float())


def pack(values: Tensor, bits: Bits) -> tuple[Tensor, int]:
    """Return packed rows (R, bytes) of values (R, D), and the first that has no codes, or -1."""
    if bits == 16:
        half = values.half()
        return half.view(torch.uint8), _first(half.isfinite().all(dim=1))
    codes, scale, bias = _codes(values, bits)
    wrong = _first((scale.isfinite() & bias.isfinite()).flatten())
    codes = codes.nan_to_num_().to(torch.uint8)
    if (per_byte := 8 // bits) > 1:
        codes = nn.functional.pad(codes, (0, -codes.shape[1] % per_byte))
        codes = _joined(codes.unflatten(1, (-1, per_byte)), bits)
    return torch.cat([codes, scale.view(torch.uint8), bias.view(torch.uint8)], dim=1), wrong


def unpack(packed: Tensor, dim: int, bits: Bits) -> Tensor:
    """Return the numbers (R, D) of packed rows (R, bytes)."""
    if bits == 16:
        return packed.contiguous().view(torch.float16).float()
    dtype = scales_of(bits)
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


def _codes(values: Tensor, bits: Bits) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes (..., D) as floats, and scale and bias (..., 1)."""
    most, dtype = 2**bits - 1, scales_of(bits)
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
