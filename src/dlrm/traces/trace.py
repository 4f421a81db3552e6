"""A trace: the ids that one feature looked up, in order, and how many each sample looked up."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import InputError
from dlrm.traces import native

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """The accesses of one feature to its table."""

    name: str
    ids: Ids
    """(L,) in order, none negative"""
    lengths: Ids | None = None
    """(n,) ids of each sample, which sum to L; None where each has one"""

    @classmethod
    def of(cls, name: str, ids: Any, lengths: Any = None, *, file: Any = "the trace") -> "Trace":
        """Return a trace of arrays that are looked at first.

        Args:
            name: Name of the feature.
            ids: (L,) integers.
            lengths: (n,) integers; None for one id a sample.
            file: Where they come from, for errors.

        Raises:
            InputError: There is no access, an id is negative or no integer, or lengths do not fit.

        """

        def integers(values: Any, what: str) -> Ids:
            array = np.asarray(values)
            if array.ndim != 1 or array.dtype.kind not in "iu":
                shape = f"{array.dtype} of {array.ndim} dimensions"
                raise InputError(f"{what} are {shape}, expected a row of integers", file=file)
            array = array.astype(np.int64)
            if len(array) and array.min() < 0:
                row = int(np.argmax(array < 0))
                raise InputError(
                    f"{what} must not be negative, found {array[row]}",
                    file=file,
                    row=row + 1,
                    column=name,
                )
            return array

        if not np.size(ids):
            raise InputError(f"the trace {name} is empty", file=file)
        ids = integers(ids, "ids")
        if lengths is not None:
            lengths = integers(lengths, "lengths")
            if lengths.sum() != len(ids):
                problem = (
                    f"lengths of {name} sum to {lengths.sum():,}, and there are {len(ids):,} ids"
                )
                raise InputError(problem, file=file)
            if len(lengths) == len(ids) and (lengths == 1).all():
                lengths = None
        return cls(name, ids, lengths)

    def __len__(self) -> int:
        """How many accesses there are, L."""
        return len(self.ids)

    @property
    def samples(self) -> int:
        """How many samples look ids up, n."""
        return len(self.ids) if self.lengths is None else len(self.lengths)

    @cached_property
    def renumbered(self) -> tuple[Ids, int]:
        """The ids (L,) as places among the distinct ones in order of first access; their number."""
        return native.renumber(self.ids)

    @cached_property
    def distances(self) -> Ids:
        """The LRU stack distance (L,) of each access, -1 for the first of an id."""
        return native.stack_distances(*self.renumbered)

    @cached_property
    def counts(self) -> Ids:
        """How often each distinct id is accessed (U,), in order of first access."""
        codes, distinct = self.renumbered
        return np.bincount(codes, minlength=distinct)

    def first_of_batches(self, batch_size: int) -> Ids:
        """Return the place of the first access of each whole batch, and the end of the last."""
        if self.lengths is None:
            return np.arange(0, len(self) + 1, batch_size)
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        return ends[::batch_size]
