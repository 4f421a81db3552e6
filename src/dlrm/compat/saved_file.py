"""A safetensors file with values beside its tensors, and a checksum over both.

It is read some rows at a time, whatever its size.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlrm.errors import CheckpointError
from dlrm.json_file import parse_object
from dlrm.nn.embedding import pieces

KEY = "dlrm_s_pytorch"
"""Of the JSON in the metadata."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file, and return it and the values in it.

    Raises:
        CheckpointError: It is missing, or is no such file.

    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; --load-model names one that was saved before")
    try:
        file = safe_open(path, framework="pt")
        metadata = parse_object((file.metadata() or {})[KEY].encode())
    except (OSError, SafetensorError, KeyError, ValueError):
        raise CheckpointError(
            f"{path}: not a model that --save-model wrote, or damaged; "
            "files pickled by the original are not loaded: a pickle can run any code"
        ) from None
    with file as stored:
        yield stored, metadata


class Stored(Mapping[str, Any]):
    """Tensors of a file, of which only those rows are read that are asked for."""

    def __init__(self, file: Any):
        self.file = file

    def __getitem__(self, name: str) -> Any:
        slices = self.file.get_slice(name)
        return slices if slices.get_shape() else self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.keys())

    def __len__(self) -> int:
        return len(self.file.keys())


def crc32(values: dict[str, Any], tensors: Mapping[str, Any]) -> int:
    """Return a checksum of values and of tensors, which may be slices of a file."""
    checksum = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole = isinstance(tensor, Tensor)
        shape = tuple(tensor.shape if whole else tensor.get_shape())
        dtype = tensor.dtype if whole else tensor[:0].dtype
        checksum = zlib.crc32(f"{name} {dtype} {shape}".encode(), checksum)
        if not shape:
            checksum = zlib.crc32(tensor.numpy().tobytes(), checksum)
            continue
        for first, last in pieces(shape[0], max(1, prod(shape[1:]))):
            checksum = zlib.crc32(tensor[first:last].numpy().tobytes(), checksum)
    return checksum
