"""A batch of samples, as every model takes it.

Legend used throughout: B batch, T categorical features, T1 of them with one id a sample, F of them
lists, D embedding dimension, N dense features, K labels, L ids in the lists of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Jagged(NamedTuple):
    """Lists one after another: list g is `values[offsets[g] : offsets[g + 1]]`, and may be empty.

    In a batch they stand sample by sample and feature by feature: g = b*F + f.
    """

    values: Tensor
    """(L, ...)"""
    offsets: Tensor
    """(G + 1,) int64, rising from 0 to L"""

    @property
    def lengths(self) -> Tensor:
        """(G,) int64, the length of each list."""
        return self.offsets.diff()

    def slice(self, start: int, stop: int) -> "Jagged":
        """Return lists start to stop; the values are a view."""
        offsets = self.offsets[start : stop + 1]
        return Jagged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def columns(self, features: Sequence[int], count: int) -> "Jagged":
        """Return the lists of some features of each sample alone.

        Args:
            features: Their positions, in the order in which they come out.
            count: Features of a sample here, so that there are B*count lists.

        """
        chosen = torch.tensor(features, dtype=torch.int64, device=self.offsets.device)
        starts = self.offsets[:-1].view(-1, count).index_select(1, chosen).flatten()
        lengths = self.lengths.view(-1, count).index_select(1, chosen).flatten()
        offsets = torch.cat([self.offsets.new_zeros(1), lengths.cumsum(0)])
        # A number, but in an export, where int() would ask for it.
        total: int = offsets[-1].item()  # pyright: ignore[reportAssignmentType]
        torch._check(total >= 0)
        moved = spread(starts - offsets[:-1], offsets, total)
        places = torch.arange(total, device=offsets.device) + moved
        return Jagged(self.values.index_select(0, places), offsets)


def spread(values: Tensor, offsets: Tensor, count: int) -> Tensor:
    """Return the value of its list for each id, (L,), from values (G,) and offsets (G + 1,).

    L is the `count`; values are whole numbers.
    """
    if not torch.compiler.is_exporting():
        return values.repeat_interleave(offsets.diff(), output_size=count)
    # Other runtimes cannot repeat, and are slow at single numbers from anywhere: what changes where
    # a list begins is added up.
    changes = torch.cat([values[:1], values.diff()])
    return values.new_zeros(count + 1).scatter_add(0, offsets[:-1], changes).cumsum(0)[:count]


def bags_of(offsets: Tensor, count: int) -> Tensor:
    """Return the list that each of `count` ids lies in, (L,) int64, from offsets (G + 1,)."""
    return spread(torch.arange(offsets.shape[0] - 1, device=offsets.device), offsets, count)


def interleave(features: Sequence[Jagged]) -> Jagged:
    """Return the lists of several features, each with offsets (B + 1,), sample by sample as one."""
    count = len(features)
    lengths = torch.stack([feature.lengths for feature in features], dim=1).flatten()
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = sum(feature.values.shape[0] for feature in features)
    values = features[0].values.new_empty(total, *features[0].values.shape[1:])
    for f, feature in enumerate(features):
        moved = offsets[f:-1:count] - feature.offsets[:-1]
        here = feature.values.shape[0]
        places = spread(moved, feature.offsets, here)
        values[torch.arange(here, device=values.device) + places] = feature.values
    return Jagged(values, offsets)


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples.

    Features with one id a sample are one block, whatever the others are; only lists are jagged.
    """

    dense: Tensor
    """(B, N) float32"""
    ids: Tensor
    """(B, T1) int32 or int64, of the features with one id a sample"""
    labels: Tensor
    """(B, K) float32; zeros where nothing is known"""
    lists: Jagged | None = None
    """Ids (L,) of the F bags and sequences of each sample, with offsets (B*F + 1,); None where the
    schema has no such feature"""
    weights: Tensor | None = None
    """(B,) float32, how much each sample counts; None for 1 each"""
    parts: tuple[int, ...] | None = None
    """Samples of each process where these are a part of a larger batch; their sum is its size"""

    @classmethod
    def of(
        cls,
        dense: NDArray[np.float32],
        ids: NDArray[np.integer],
        labels: NDArray[np.generic],
        lists: tuple[NDArray[np.integer], NDArray[np.int64]] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> "Batch":
        """Return arrays as a batch, without copying what has the right type."""
        return cls(
            torch.from_numpy(dense),
            torch.from_numpy(ids),
            torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float32)),
            None if lists is None else Jagged(*map(torch.from_numpy, lists)),
            None if weights is None else torch.from_numpy(weights),
        )

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def num_lists(self) -> int:
        """F, the list features that this batch has ids for."""
        if self.lists is None:
            return 0
        return (self.lists.offsets.shape[0] - 1) // max(len(self), 1)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return this batch on a device; itself where it is there already."""
        if self.labels.device == torch.device(device):
            return self
        return self._mapped(lambda part: part.to(device, non_blocking=non_blocking))

    def pin(self) -> "Batch":
        """Return this batch in page-locked memory, from which a GPU copies asynchronously."""
        return self._mapped(lambda part: part.pin_memory())

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            function(self.dense),
            function(self.ids),
            function(self.labels),
            None if self.lists is None else Jagged(*map(function, self.lists)),
            None if self.weights is None else function(self.weights),
            self.parts,
        )

    def slice(self, start: int, stop: int) -> "Batch":
        """Return samples start to stop; a view wherever the layout allows it."""
        stop = min(stop, len(self))
        start = min(start, stop)
        lists, count = self.lists, self.num_lists
        return Batch(
            self.dense[start:stop],
            self.ids[start:stop],
            self.labels[start:stop],
            None if lists is None else lists.slice(start * count, stop * count),
            None if self.weights is None else self.weights[start:stop],
        )
