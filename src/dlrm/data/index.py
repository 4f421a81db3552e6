"""Values -> their places: the index of a vocabulary, made once and read by any number of threads.

    integers of 32 bits   a hash table in C++ (dlrm.data.integer_index)
    texts, longer ones    a dictionary where few values are looked up, else their hashes, sorted,
                          and a comparison with what they point to: 12 bytes a value
    all others            a join at each call

No value is in an index twice. Missing (null) is a value like any other; what is
not in the index has the place `other`, behind all others.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.integer_index import IntegerIndex, small_integers

FEW_ROWS = 512
"""So many values are looked up in a dictionary, one by one: faster than starting a query."""
DICTIONARY_VALUES = 1 << 20
"""More values than these make no dictionary, which takes some 100 bytes a value."""

T = TypeVar("T")


class Once(Generic[T]):
    """Something that the first who asks for it makes; copies and pickles are empty again."""

    __slots__ = ("_lock", "_made")

    def __init__(self) -> None:
        self._lock, self._made = Lock(), []

    def get(self, make: Callable[[], T]) -> T:
        """Return it; others who ask meanwhile wait."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(make())
        return self._made[0]

    def __reduce__(self) -> tuple[type["Once[T]"], tuple[()]]:
        return Once, ()


class Index(Protocol):
    """Where each of V values stands."""

    dtype: pl.DataType
    """Type of the values"""
    other: int
    """V, the place of all other values"""

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the place of each value (n,); they are of the type of those in the index."""
        ...


def make_index(values: pl.Series) -> Index:
    """Return the index of V values, all different."""
    numbers = small_integers(values) if kernels.available() else None
    return HashIndex(values) if numbers is None else IntegerIndex(values, numbers)


class HashIndex:
    """The index of values of any type."""

    def __init__(self, values: pl.Series):
        self.dtype, self.other = values.dtype, len(values)
        self._values = values
        self._dictionary: Once[dict[object, int]] = Once()
        self._sorted: Once[tuple[NDArray[np.uint64], NDArray[np.int32]] | None] = Once()

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """See `Index`."""
        if not (self.dtype.is_integer() or self.dtype == pl.String):
            # Equal values may be written in several ways, as NaN and 0 are.
            return self._joined(values)
        places = self.few(values.to_list()) if len(values) <= FEW_ROWS else None
        if places is not None:
            return np.array(places, np.int32)
        hashes = self._sorted.get(self._hashed)
        return self._joined(values) if hashes is None else self._searched(values, *hashes)

    def few(self, values: Sequence[object]) -> list[int] | None:
        """Return the places of a few values, integers or texts; None without a dictionary."""
        if self.other > DICTIONARY_VALUES:
            return None
        places, other = self._dictionary.get(self._numbered), self.other
        return [places.get(value, other) for value in values]

    def _numbered(self) -> dict[object, int]:
        return {value: place for place, value in enumerate(self._values.to_list())}

    def _hashed(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]] | None:
        """Return the hashes of all values, rising, and their places; None where two are alike."""
        hashes = self._values.hash().to_numpy()
        order = np.argsort(hashes).astype(np.int32)
        hashes = hashes[order]
        return None if (hashes[1:] == hashes[:-1]).any() else (hashes, order)

    def _searched(
        self, values: pl.Series, hashes: NDArray[np.uint64], order: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        if not self.other:
            return np.zeros(len(values), np.int32)
        at = np.searchsorted(hashes, values.hash().to_numpy())
        places = order[np.minimum(at, self.other - 1)]
        same = values.eq_missing(self._values.gather(places)).to_numpy()
        return np.where(same, places, np.int32(self.other))

    def _joined(self, values: pl.Series) -> NDArray[np.int32]:
        places = self._values.alias("value").to_frame().with_row_index("place")
        joined = (
            values.alias("value")
            .to_frame()
            .join(places, on="value", how="left", nulls_equal=True, maintain_order="left")
        )
        return joined["place"].fill_null(self.other).cast(pl.Int32).to_numpy()
