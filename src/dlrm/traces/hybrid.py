"""Traffic of popularity, recency and drift together: every id is a renewal process of its class.

    class     ids of about the same number of accesses
    spans     where in the trace an id is accessed first and last, 32 x 32 cells: drift
    gaps      accesses between two of the same id, 4 bins for each doubling: recency

A trace is made by dealing the counts, spans and gaps of each class out to its ids, which keeps
their distributions as they are, so that popularity is exact and reuse nearly so; and by sorting all
accesses by time. How time runs is tried by `fit`, which keeps what gives the best card:

    poisson   a gap of g accesses takes Gamma(g) time: as where accesses have little memory, exactly
              so however short the gaps
    even      it takes g
    regular   it takes g, and ids keep to their gaps rather than to their spans: as in a scan
    shuffled  at any time: only popularity matters
    stack     an LRU stack instead: only recency matters

A stream longer than its source goes on in periods of the source's length. Ids that are in use at
the end of one are those in use at the beginning of the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from dlrm.traces.card import compare
from dlrm.traces.measures import Measures
from dlrm.traces.recency import LRUStack
from dlrm.traces.trace import Ids, Trace
from dlrm.traces.traffic import Traffic, shared_out

CELLS = 32
"""Parts of the trace that first and last accesses are told by."""
LEAST = 1000
"""Accesses that a fit needs."""
RARE = 4
"""Accesses below which an id does not go on into the next period, unless it has just come."""
TRIED = 1_000_000
"""Accesses from which `fit` tells how time runs, at most."""
Time = Literal["poisson", "even", "regular", "shuffled", "stack"]

_STARTS = np.unique(
    np.concatenate([np.arange(1, 17), np.rint(16 * 2 ** (np.arange(1, 160) / 4))])
).astype(np.int64)
"""Smallest gap of each bin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PopularityClass:
    """Ids of about the same number of accesses."""

    counts: NDArray[np.int64]
    """(c, 2) accesses of an id, and how many ids have so many"""
    spans: NDArray[np.int64]
    """(s, 3) cell of the first access, cell of the last, ids"""
    bounds: NDArray[np.int64]
    """(2, 2) the earliest first access and the latest; the earliest last access and the latest"""
    gaps: NDArray[np.int64]
    """(g, 4) bin, gaps in it, their sum, ten times their standard deviation"""


class Hybrid(Traffic):
    """Popularity, recency and drift."""

    kind = "hybrid"
    least = LEAST

    def __init__(
        self,
        accesses: int,
        classes: list[PopularityClass],
        time: Time = "poisson",
        stack: LRUStack | None = None,
    ):
        self.accesses, self.classes, self.time, self.stack = accesses, classes, time, stack

    @classmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the model of a trace: of the notions of time the one whose card is best."""
        # A million accesses tell how time runs.
        beginning = Trace(trace.name, trace.ids[:TRIED]) if len(trace) > TRIED else trace
        source = Measures(Trace(trace.name, beginning.ids))
        tried = {time: cls._with(beginning, time) for time in get_args(Time)}

        def worst(time: Time) -> float:
            return compare(source, Measures(tried[time].generate(len(beginning)))).worst

        best = min(get_args(Time), key=worst)
        return tried[best] if beginning is trace else cls._with(trace, best)

    @classmethod
    def _with(cls, trace: Trace, time: Time) -> Self:
        if time == "stack":
            return cls(len(trace), [], time, LRUStack.fit(trace))
        return cls(len(trace), _classes(trace), time)

    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield the accesses of one period after the other."""
        if self.stack is not None:
            yield from self.stack.chunks(rng)
            return
        in_use = [np.empty(0, np.int64) for _ in self.classes]
        ids_so_far = 0
        while True:
            dealt = [self._deal(kind, rng) for kind in self.classes]
            items: list[Ids] = []
            numbers: list[Ids] = []
            for ids, old in zip(dealt, in_use, strict=True):
                items.append(ids.owners + sum(map(len, numbers)))
                numbers.append(_inherited(ids, old, rng))
            number = np.concatenate(numbers)
            order = np.argsort(np.concatenate([ids.times for ids in dealt]), kind="stable")
            accessed = np.concatenate(items)[order]
            first = np.empty(len(number), np.int64)
            first[accessed[::-1]] = np.arange(len(accessed))[::-1]  # what is set last counts
            new = np.flatnonzero(number < 0)
            number[new[np.argsort(first[new])]] = np.arange(ids_so_far, ids_so_far + len(new))
            ids_so_far += len(new)
            in_use = [
                starting[self.accesses - ids.last <= ids.idle]
                for ids, starting in zip(
                    dealt, np.split(number, np.cumsum([len(n) for n in numbers])[:-1]), strict=True
                )
            ]
            yield number[accessed]

    def _deal(self, kind: PopularityClass, rng: np.random.Generator) -> "_Dealt":
        """Return the accesses of the ids of a class in one period."""
        counts = np.repeat(kind.counts[:, 0], kind.counts[:, 1])
        cells = shared_out(kind.spans[:, 2], len(counts), rng)
        width = self.accesses / CELLS
        low = np.maximum(kind.spans[cells, :2] * width, kind.bounds[:, 0])
        high = np.minimum((kind.spans[cells, :2] + 1) * width, kind.bounds[:, 1] + 1)
        ends = low + rng.random((len(counts), 2)) * np.maximum(high - low, 0)
        first, last = ends.min(axis=1), ends.max(axis=1)
        owners = np.repeat(np.arange(len(counts)), counts - 1)
        gaps = self._gaps(kind, len(owners), rng)
        sums = np.bincount(owners, weights=gaps, minlength=len(counts))
        # Long spans go to the ids that were dealt long gaps, so that few have to be stretched.
        by_span = np.argsort(last - first, kind="stable")
        match = np.empty(len(counts), np.int64)
        match[np.argsort(sums, kind="stable")] = by_span
        first, last = first[match], last[match]
        stretch = (last - first) / np.maximum(sums, 1e-9)
        if self.time == "regular":
            first = np.clip(first, 0, np.maximum(self.accesses - sums, 0))
            stretch = np.minimum(1.0, (self.accesses - first) / np.maximum(sums, 1e-9))
        gaps *= stretch[owners]
        elapsed = np.cumsum(gaps)
        begin = np.cumsum(counts - 1) - (counts - 1)
        before = np.where(begin > 0, elapsed[begin - 1], 0.0) if len(elapsed) else first
        times = np.concatenate([first, first[owners] + elapsed - before[owners]])
        if self.time == "shuffled":
            times = rng.random(len(times))
        # What came a few times only is not missed when it is gone.
        idle = self.accesses / np.where(counts < RARE, CELLS, np.minimum(counts, CELLS))
        owners = np.concatenate([np.arange(len(counts)), owners])
        return _Dealt(times, owners, first, last, idle)

    def _gaps(
        self, kind: PopularityClass, size: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return gaps (size,) in time."""
        if not size:
            return np.empty(0)
        bins, numbers, sums, deviations = kind.gaps.T
        means = sums / numbers
        # Within a bin evenly around its mean, as far as the bin goes.
        room = np.minimum(means - _STARTS[bins], _STARTS[bins + 1] - 1 - means)
        widths = np.clip(np.sqrt(3) / 10 * deviations, 0, np.maximum(room, 0))
        drawn = shared_out(numbers, size, rng)
        gaps = means[drawn] + (2 * rng.random(size) - 1) * widths[drawn]
        return rng.standard_gamma(gaps) if self.time == "poisson" else gaps

    def parameters(self) -> dict[str, Any]:
        """Return the classes, or the stack."""
        stack = {} if self.stack is None else {"stack": self.stack.parameters()}
        classes = [
            {name: getattr(kind, name).tolist() for name in ("counts", "spans", "bounds", "gaps")}
            for kind in self.classes
        ]
        return {"accesses": self.accesses, "time": self.time, "classes": classes, **stack}

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters."""
        time = parameters["time"]
        if time not in get_args(Time):
            raise ValueError(f"time is {time!r}, expected one of {', '.join(get_args(Time))}")
        stack = LRUStack.of(parameters["stack"]) if time == "stack" else None
        classes = [_checked(values) for values in parameters["classes"]]
        accesses = sum(int(kind.counts.prod(axis=1).sum()) for kind in classes)
        if stack is None and accesses != parameters["accesses"]:
            raise ValueError(
                f"{accesses:,} accesses in classes, and {parameters['accesses']} in all"
            )
        return cls(int(parameters["accesses"]), classes, time, stack)


@dataclass(frozen=True, slots=True)
class _Dealt:
    """The accesses of the n ids of a class in one period."""

    times: NDArray[np.float64]
    """When each access is; the first ones of all ids, then the others"""
    owners: Ids
    """Which of the ids each access is of"""
    first: NDArray[np.float64]
    """(n,) time of the first access"""
    last: NDArray[np.float64]
    """(n,) time of the last access"""
    idle: NDArray[np.float64]
    """(n,) time without an access after which an id is no longer in use"""


def _inherited(ids: _Dealt, old: Ids, rng: np.random.Generator) -> Ids:
    """Return the numbers of the ids of a class that go on from the period before, -1 for others.

    Both are in the order of their counts, so that popular ids stay as popular.
    """
    numbers = np.full(len(ids.first), -1)
    begun = np.flatnonzero(ids.first <= ids.idle)
    both = min(len(begun), len(old))
    goes_on, begins = (np.sort(rng.permutation(len(a))[:both]) for a in (old, begun))
    numbers[begun[begins]] = old[goes_on]
    return numbers


def gap_bin(gaps: Any) -> Any:
    """Return the bins of gaps of 1 or more."""
    return np.searchsorted(_STARTS, gaps, side="right") - 1


def _classes(trace: Trace) -> list[PopularityClass]:
    """Return the ids of a trace by number of accesses: 1 to 8, then two classes a doubling."""
    codes, _ = trace.renumbered
    counts, accesses = trace.counts, len(trace)
    order = np.argsort(codes, kind="stable")
    gaps, owners = np.diff(order), codes[order]
    reused = owners[1:] == owners[:-1]
    gaps, owners = gaps[reused], owners[1:][reused]
    ends = np.cumsum(counts)
    first, last = order[ends - counts], order[ends - 1]
    octaves = np.ceil(2 * np.log2(np.maximum(counts, 8) / 8) - 1e-9).astype(np.int64)
    kinds = np.where(counts <= 8, counts, 8 + octaves)
    bins = gap_bin(gaps)
    classes = []
    for kind in np.unique(kinds):
        ids, of_kind = kinds == kind, kinds[owners] == kind
        cells = np.stack([first[ids] * CELLS // accesses, last[ids] * CELLS // accesses], axis=1)
        spans, span_counts = np.unique(cells, axis=0, return_counts=True)
        numbers = np.bincount(bins[of_kind], minlength=len(_STARTS))
        sums = np.bincount(bins[of_kind], weights=gaps[of_kind], minlength=len(_STARTS))
        used = np.flatnonzero(numbers)
        from_mean = gaps[of_kind] - (sums / np.maximum(numbers, 1))[bins[of_kind]]
        squares = np.bincount(bins[of_kind], weights=from_mean**2, minlength=len(_STARTS))
        deviations = 10 * np.sqrt(squares[used] / numbers[used])
        classes.append(
            PopularityClass(
                counts=np.stack(np.unique(counts[ids], return_counts=True), axis=1),
                spans=np.column_stack([spans, span_counts]),
                bounds=np.array([[end[ids].min(), end[ids].max()] for end in (first, last)]),
                gaps=np.column_stack([used, numbers[used], sums[used], np.rint(deviations)]).astype(
                    np.int64
                ),
            )
        )
    return classes


def _checked(values: dict[str, Any]) -> PopularityClass:
    """Return a class as a file says it; a ValueError where it means nothing."""
    arrays = {}
    for name, columns in (("counts", 2), ("spans", 3), ("bounds", 2), ("gaps", 4)):
        array = np.array(values[name], np.int64).reshape(-1, columns)
        if (array < 0).any():
            raise ValueError(f"{name} are negative")
        arrays[name] = array
    counts, spans, gaps = arrays["counts"], arrays["spans"], arrays["gaps"]
    ids = int(counts[:, 1].sum())
    if not ids or (counts[:, 0] < 1).any() or int(spans[:, 2].sum()) < 1:
        raise ValueError("a class has no ids, or they have no accesses")
    if arrays["bounds"].shape != (2, 2):
        raise ValueError("bounds are not of first and last accesses")
    if spans[:, :2].max() >= CELLS or (len(gaps) and gaps[:, 0].max() >= len(_STARTS) - 1):
        raise ValueError("a span or a gap is outside of all bins")
    if (counts[:, 0] > 1).any() and (not len(gaps) or (gaps[:, 1] < 1).any()):
        raise ValueError("a class of several accesses has no gaps")
    return PopularityClass(**arrays)
