"""Predictions gathered in pieces."""

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import check_lengths
from dlrm.metrics.values import MetricValues, measure

Array = NDArray[np.float32]


class Metrics:
    """Predictions gathered piece by piece, and their metrics.

    Exact rather than sketched: it keeps 8 bytes a sample (713 MB for the 89 million of Criteo
    Terabyte's test day), and takes some 60 more for a moment to compute. However the samples are
    cut into pieces, and in whatever order these are merged, the metrics are equal bit for bit.
    """

    def __init__(self) -> None:
        self._logits: list[Array] = []
        self._labels: list[Array] = []

    def update(self, logits: Array, labels: Array) -> None:
        """Add predictions.

        Args:
            logits: (S,) scores before the sigmoid.
            labels: (S,) 0 or 1.

        Raises:
            DatasetError: The arrays are not equally long.

        """
        check_lengths(logits, labels)
        # Copies, since whoever calls may write over its own.
        self._logits.append(np.array(logits, dtype=np.float32))
        self._labels.append(np.array(labels, dtype=np.float32))

    def merge(self, other: "Metrics") -> None:
        """Add all predictions of another."""
        self._logits += other._logits
        self._labels += other._labels

    def arrays(self) -> tuple[Array, Array]:
        """Return logits and labels (S,), in the order they came."""
        empty = np.empty(0, dtype=np.float32)
        return (
            np.concatenate([empty, *self._logits]),
            np.concatenate([empty, *self._labels]),
        )

    def compute(self) -> MetricValues:
        """Return the metrics of everything added so far."""
        return measure(*self.arrays())

    def __len__(self) -> int:
        return sum(map(len, self._labels))
