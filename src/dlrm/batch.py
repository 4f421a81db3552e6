"""A batch of samples, as every model takes it.

Legend used throughout: B batch, T tables, D embedding dimension, N dense features, L ids in the
batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples.

    One-hot batches carry one id per sample and table and no offsets. Multi-hot batches carry the
    bags of all samples one after another, sample by sample and table by table: the bag of sample b
    in table t is `ids[offsets[b*T + t] : offsets[b*T + t + 1]]`, and may be empty.
    """

    dense: Tensor
    """(B, N) float32"""
    ids: Tensor
    """(B, T) int32 or int64 when one-hot, else (L,)"""
    labels: Tensor
    """(B,) float32; zeros where nothing is known"""
    offsets: Tensor | None = None
    """None when one-hot, else (B*T + 1,) int64, from 0 to L"""
    parts: tuple[int, ...] | None = None
    """Samples of each process where these are a part of a larger batch; their sum is its size"""

    @classmethod
    def of(
        cls,
        dense: NDArray[np.float32],
        ids: NDArray[np.int32],
        labels: NDArray[np.generic],
        offsets: NDArray[np.int64] | None = None,
    ) -> "Batch":
        """Return arrays as a batch, without copying what has the right type."""
        return cls(
            torch.from_numpy(dense),
            torch.from_numpy(ids),
            torch.from_numpy(labels.astype(np.float32)),
            None if offsets is None else torch.from_numpy(offsets),
        )

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def tables(self) -> int:
        """T, the number of tables this batch has ids for."""
        if self.offsets is None:
            return self.ids.shape[1]
        return (self.offsets.shape[0] - 1) // max(len(self), 1)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return this batch on a device."""
        return Batch(
            self.dense.to(device, non_blocking=non_blocking),
            self.ids.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            None if self.offsets is None else self.offsets.to(device, non_blocking=non_blocking),
            self.parts,
        )

    def pin(self) -> "Batch":
        """Return this batch in page-locked memory, from which a GPU copies asynchronously."""
        return Batch(
            self.dense.pin_memory(),
            self.ids.pin_memory(),
            self.labels.pin_memory(),
            None if self.offsets is None else self.offsets.pin_memory(),
            self.parts,
        )

    def slice(self, start: int, stop: int) -> "Batch":
        """Return samples start to stop; a view wherever the layout allows it."""
        dense, labels = self.dense[start:stop], self.labels[start:stop]
        if self.offsets is None:
            return Batch(dense, self.ids[start:stop], labels)
        tables = self.tables
        stop = min(stop, len(self))
        offsets = self.offsets[start * tables : stop * tables + 1]
        return Batch(dense, self.ids[offsets[0] : offsets[-1]], labels, offsets - offsets[0])
