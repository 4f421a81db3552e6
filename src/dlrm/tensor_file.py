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
from types import TracebackType

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


class Writer:
    """Writes parts of tensors into a file that `create` has made."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> "Writer":
        self._file = self.path.open("r+b")
        (size,) = struct.unpack("<Q", self._file.read(8))
        self._header = json.loads(self._file.read(size))
        self._data = 8 + size
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                sync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, name: str, whole: Whole) -> None:
        """Write what this process keeps of a tensor."""
        start = self._data + self._header[name]["data_offsets"][0]
        for part in whole.parts:
            if part.values.numel():
                self._write(start, whole, part)

    def _write(self, start: int, whole: Whole, part: Part) -> None:
        numbers = part.values.detach().cpu().contiguous()
        content = numbers.reshape(-1).view(torch.uint8).numpy()
        width = whole.shape[-1] if whole.shape else 1
        if part.values.dim() < 2 or part.values.shape[-1] == width:
            row_bytes = prod(whole.shape[1:]) * whole.dtype.itemsize
            _write_all(self._file.fileno(), content, start + part.row * row_bytes)
            return
        # Columns: a short piece of every row.
        size = whole.dtype.itemsize
        rows = (prod(whole.shape[:-1]), width * size)
        file = np.memmap(self.path, np.uint8, "r+", offset=start, shape=rows)
        lines = prod(whole.shape[1:-1])
        first, columns = part.row * lines, part.values.shape[-1]
        target = file[first : first + len(part.values) * lines]
        target[:, part.column * size : (part.column + columns) * size] = content.reshape(
            -1, columns * size
        )
        file.flush()


def _write_all(descriptor: int, content: np.ndarray, at: int) -> None:
    view = memoryview(content)  # pyright: ignore[reportArgumentType]
    # The system may take less than it is given, and never more than 2 GB at once.
    while view:
        written = os.pwrite(descriptor, view[: 1 << 30], at)
        view, at = view[written:], at + written
