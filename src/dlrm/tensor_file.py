"""A safetensors file that several processes write together, each its part of the tensors.

One makes the file, with room for all of them; then each writes what it keeps. What comes out is the
file that one process would have written.

Source: https://huggingface.co/docs/safetensors, section Format (8 bytes with the length of a JSON
header; the header; the tensors one after another, without gaps).
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from dlrm.files import sync

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Type -> its name in the header."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a tensor: some rows, of these some columns of its last dimension."""

    values: Tensor
    """(rows, ...)"""
    row: int = 0
    """Where its first row lies in the whole."""
    column: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor, and the parts of it that this process keeps."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, tensor: Tensor, written: bool = True) -> "Whole":
        """Return a tensor that this process has all of, and writes or not."""
        return cls(tensor.dtype, tuple(tensor.shape), (Part(tensor),) if written else ())


def create(path: Path, tensors: Mapping[str, Whole]) -> None:
    """Make a file with room for all tensors, zero so far."""
    header, at = {}, 0
    # Wide types first, so that every tensor lies at a multiple of its numbers' size.
    for name, whole in sorted(tensors.items(), key=lambda t: (-t[1].dtype.itemsize, t[0])):
        end = at + prod(whole.shape) * whole.dtype.itemsize
        header[name] = {
            "dtype": NAMES[whole.dtype],
            "shape": list(whole.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def write(path: Path, tensors: Mapping[str, Whole]) -> None:
    """Write what this process keeps of tensors into a file that `create` has made."""
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        for name, whole in tensors.items():
            start = 8 + size + header[name]["data_offsets"][0]
            for part in whole.parts:
                if part.values.numel():
                    _write(file, start, whole, part)
        sync(file.fileno())


def _write(file: BinaryIO, start: int, whole: Whole, part: Part) -> None:
    numbers = part.values.detach().cpu().contiguous()
    content = numbers.reshape(-1).view(torch.uint8).numpy()
    size, width = whole.dtype.itemsize, whole.shape[-1] if whole.shape else 1
    if part.values.dim() < 2 or part.values.shape[-1] == width:
        view = memoryview(content)  # pyright: ignore[reportArgumentType]
        at = start + part.row * prod(whole.shape[1:]) * size
        # The system may take less than it is given, and never more than 2 GB at once.
        while view:
            written = os.pwrite(file.fileno(), view[: 1 << 30], at)
            view, at = view[written:], at + written
        return
    # Columns: a short piece of every row.
    lines = prod(whole.shape[1:-1])
    mapped = np.memmap(
        file, np.uint8, "r+", offset=start, shape=(whole.shape[0] * lines, width * size)
    )
    first, columns = part.row * lines, slice(part.column * size, None)
    target = mapped[first : first + len(part.values) * lines, columns]
    target[:, : part.values.shape[-1] * size] = content.reshape(len(target), -1)
    mapped.flush()
