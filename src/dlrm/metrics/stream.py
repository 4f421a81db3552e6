"""Predictions gathered in pieces."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError
from dlrm.metrics.values import Values, measure_for
from dlrm.metrics.weights import checked
from dlrm.schema import Task

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]


class Metrics:
    """Predictions gathered piece by piece, and their metrics, label by label.

    Exact rather than sketched: it keeps 8 bytes a sample and label (713 MB for the 89 million of
    Criteo Terabyte's test day), and 4 of a weight, and takes some 60 more for a moment to compute.
    However the samples are cut into pieces, and in whatever order these are merged, the metrics are
    equal bit for bit. Tensors on a device stay there until somebody asks for the arrays, so that
    nothing waits for it before.
    """

    def __init__(self, num_labels: int = 1, task: Task = "classification"):
        self.num_labels = num_labels
        self.task: Task = task
        self._logits: list[Any] = []
        self._labels: list[Any] = []
        self._weights: list[Any] = []

    def update(
        self,
        logits: "NDArray[np.floating] | Tensor",
        labels: "NDArray[np.number] | Tensor",
        weights: "NDArray[np.floating] | Tensor | None" = None,
    ) -> None:
        """Add predictions.

        Scores and labels are (S, K), with one label also (S,).

        Raises:
            DatasetError: They are not equally long, or not of K labels.

        """
        rows = len(labels)
        checked(rows, scores=logits, weights=weights)  # pyright: ignore[reportArgumentType]
        self._logits.append(self._piece(logits, "scores"))
        self._labels.append(self._piece(labels, "labels"))
        self._weights.append(None if weights is None else _copied(weights))

    def merge(self, other: "Metrics") -> None:
        """Add all predictions of another, of as many labels."""
        if other.num_labels != self.num_labels:
            raise DatasetError(f"{other.num_labels} labels, expected {self.num_labels}")
        self._logits += other._logits
        self._labels += other._labels
        self._weights += other._weights

    def arrays(self) -> tuple[Array, Array, Array | None]:
        """Return logits (S, K), labels (S, K), and weights (S,), in the order they came.

        Weights are None where no sample has one, and 1 of those that have none where others do.
        """
        empty = np.empty((0, self.num_labels), dtype=np.float32)
        weights = None
        if any(piece is not None for piece in self._weights):
            rows = map(len, self._labels)
            pieces = [
                np.ones(count, dtype=np.float32) if piece is None else piece
                for piece, count in zip(self._weights, rows, strict=True)
            ]
            weights = _joined(pieces, empty[:, 0])
        return _joined(self._logits, empty), _joined(self._labels, empty), weights

    def label(self, k: int = 0) -> tuple[Array, Array, Array | None]:
        """Return logits (S,), labels (S,) and weights (S,) or None of label k."""
        logits, labels, weights = self.arrays()
        return _column(logits, k), _column(labels, k), weights

    def compute(self) -> tuple[Values, ...]:
        """Return the metrics of everything added so far, of each of the K labels."""
        logits, labels, weights = self.arrays()
        measure = measure_for(self.task)
        return tuple(
            measure(_column(logits, k), _column(labels, k), weights) for k in range(self.num_labels)
        )

    def __len__(self) -> int:
        return sum(map(len, self._labels))

    def _piece(self, values: Any, plural: str) -> Any:
        piece = _copied(values)
        if piece.ndim == 1 and self.num_labels == 1:
            piece = piece.reshape(-1, 1)
        if piece.ndim != 2 or piece.shape[1] != self.num_labels:
            raise DatasetError(
                f"{plural} of shape {tuple(piece.shape)}, expected ({len(piece)}, "
                f"{self.num_labels}): one for each label"
            )
        return piece


def _copied(values: Any) -> Any:
    """Return a float32 copy on the same device, since whoever calls may write over its own."""
    if isinstance(values, np.ndarray):
        return np.array(values, dtype=np.float32)
    if values.device.type != "cpu":
        return values.detach()
    return np.array(values.detach().float().numpy(), dtype=np.float32)


def _joined(pieces: Sequence[Any], empty: Array) -> Array:
    """Return pieces as one array; neighbours on a device are copied at once."""
    joined = [empty]
    for on_host, group in groupby(pieces, lambda piece: isinstance(piece, np.ndarray)):
        if on_host:
            joined += group
        else:
            import torch

            joined.append(torch.cat(list(group)).cpu().float().numpy())
    return np.concatenate(joined)


def _column(values: Array, k: int) -> Array:
    return np.ascontiguousarray(values[:, k])
