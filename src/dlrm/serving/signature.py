"""The tensors that a model takes and gives under the Open Inference Protocol.

    dense FP32 (B, N), ids INT64 (B, T1), values INT64 (L,), offsets INT64 (B*F + 1,)
        -> logits FP32 (B, K), scores FP32 (B, K)

The inputs are those of exports (`dlrm.runtimes.plain`), and those that a schema lacks are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded, Lists
from dlrm.schema import Schema
from dlrm.serving.layout import Layout
from dlrm.serving.limits import Limits, bad

DTYPES = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")} | {
    f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)
}
"""Name of a datatype that is taken -> how its numbers lie in binary data."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a request or a response."""

    name: str
    datatype: str
    """As it is described; every type of the same kind in `DTYPES` is taken."""
    shape: tuple[int, ...]
    """-1 where the size differs from request to request"""

    def to_dict(self) -> dict[str, Any]:
        """Return the tensor as metadata have it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model of a schema."""

    schema: Schema

    @cached_property
    def layouts(self) -> dict[bytes, Layout]:
        """JSON of requests that were read -> their layout."""
        return {}

    @cached_property
    def _num_lists(self) -> int:
        return len(self.schema.list_features)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The tensors that a request must have, by name."""
        schema, lists = self.schema, bool(self.schema.list_features)
        present = (
            (schema.dense, Tensor("dense", "FP32", (-1, len(schema.dense)))),
            (schema.one_hot_features, Tensor("ids", "INT64", (-1, len(schema.one_hot_features)))),
            (lists, Tensor("values", "INT64", (-1,))),
            (lists, Tensor("offsets", "INT64", (-1,))),
        )
        return {tensor.name: tensor for there, tensor in present if there}

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """The tensors that a response can have, by name."""
        shape = (-1, self.schema.num_labels)
        return {name: Tensor(name, "FP32", shape) for name in ("scores", "logits")}

    def numbers(
        self, name: str, datatype: object, shape: list[Any], most: int
    ) -> tuple[int, np.dtype[Any]]:
        """Return how many numbers an input has as its request describes it, and of which type.

        Args:
            name: Of the input.
            datatype: As the request says it.
            shape: As the request says it.
            most: Bytes of the request, which no dimension can exceed.

        Raises:
            RefusalError: There is no such input, or it is none of such a type or shape.

        """
        expected = self.inputs.get(name)
        if expected is None:
            raise bad(f'unknown input "{name}"; the model takes {", ".join(self.inputs)}')
        kind = expected.datatype[:2]
        if not isinstance(datatype, str) or datatype not in DTYPES or datatype[:2] != kind:
            choices = " or ".join(choice for choice in DTYPES if choice[:2] == kind)
            raise bad(f"{name}: the datatype must be {choices}")
        known = all(type(size) is int and 0 <= size <= most for size in shape)
        if not known or len(shape) != len(expected.shape):
            raise bad(f"{name}: the shape is none of a tensor in a body of {most} bytes")
        return prod(shape), DTYPES[datatype]

    def encoded(self, tensors: Mapping[str, NDArray[Any]], limits: Limits) -> Encoded:
        """Return the tensors of a request as samples.

        Whether the ids are in range is for the model to say.

        Args:
            tensors: By name, of the kinds of `inputs`.
            limits: Of the server.

        Raises:
            RefusalError: One is missing, or unknown, or of another shape, or they do not fit each
                other; there are too many rows, or none.

        """
        inputs = self.inputs
        for name in tensors:
            if name not in inputs:
                raise bad(f'unknown input "{name}"; the model takes {", ".join(inputs)}')
        for name, tensor in inputs.items():
            if name not in tensors:
                raise bad(f'the input "{name}" is missing; the model takes {", ".join(inputs)}')
            shape = tensors[name].shape
            fits = len(shape) == len(tensor.shape) and all(
                expected in (-1, size) for expected, size in zip(tensor.shape, shape, strict=True)
            )
            if not fits:
                raise bad(f"{name} is of shape {list(shape)}, expected {list(tensor.shape)}")
        counts = {name: len(tensors[name]) for name in ("dense", "ids") if name in tensors}
        lists = None
        if features := self._num_lists:
            values, offsets = (tensors[name].astype(np.int64) for name in ("values", "offsets"))
            lists = Lists(values, offsets)  # pyright: ignore[reportArgumentType]
            rows, rest = divmod(len(lists.offsets) - 1, features)
            if rest or rows < 0:
                raise bad(
                    f"offsets has {len(lists.offsets)} numbers, expected rows * {features} + 1"
                )
            counts["offsets"] = rows
            ends = lists.offsets
            if ends[0] != 0 or ends[-1] != len(lists.ids) or (ends[1:] < ends[:-1]).any():
                raise bad(f"offsets must rise from 0 to the number of values, {len(lists.ids)}")
        if len(set(counts.values())) > 1:
            raise bad(f"the inputs have different numbers of rows: {counts}")
        rows = next(iter(counts.values()))
        limits.check_rows(rows)
        dense = tensors.get("dense", np.empty((rows, 0), np.float32))
        # Copies, because torch takes none of a body's memory, which is not to be written.
        with np.errstate(over="ignore"):
            dense = dense.astype(np.float32)
        check_finite(dense)
        ids = tensors.get("ids", np.empty((rows, 0))).astype(np.int64)
        return Encoded(dense, ids, lists=lists)  # pyright: ignore[reportArgumentType]


def check_finite(dense: NDArray[np.float32]) -> None:
    """Raise a RefusalError where a dense input is no finite number."""
    if not np.isfinite(dense).all():
        raise bad("dense holds a value that is no finite number of 32 bits")
