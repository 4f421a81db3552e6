"""Inference requests that clients repeat, of which all but the numbers is known.

The JSON of a request is the key of its layout: where its tensors lie in the body, and the JSON of
its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded

_Place = tuple[tuple[int, ...], np.dtype[Any], int]
"""Shape and type of an array in a body, and where it begins."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A request that was read and checked, all of whose tensors are binary data."""

    body_bytes: int
    dense: _Place | NDArray[np.float32]
    """The array itself where it is empty."""
    ids: _Place | NDArray[np.int64]
    outputs: tuple[str, ...]
    """Those that are wanted, all as binary data."""
    headers: list[tuple[str, str]]
    """Of the answer."""
    head: bytes
    """The JSON of the answer."""

    def encoded(self, body: bytes) -> Encoded:
        """Return the rows of a body of this layout, whose numbers nobody has looked at."""
        dense, ids = self.dense, self.ids
        return Encoded(
            _array(body, *dense) if isinstance(dense, tuple) else dense,
            _array(body, *ids) if isinstance(ids, tuple) else ids,  # pyright: ignore[reportArgumentType]
        )

    def answer(
        self, outputs: Mapping[str, NDArray[np.float32]]
    ) -> tuple[list[tuple[str, str]], bytes]:
        """Return headers and body of the response; see `encode_infer`."""
        numbers = [outputs[name].tobytes() for name in self.outputs]
        return self.headers, b"".join([self.head, *numbers])


def _array(body: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], at: int) -> NDArray[Any]:
    # A copy, because torch takes none of a body's memory, which is not to be written.
    return np.ndarray(shape, dtype, body, at).copy()
