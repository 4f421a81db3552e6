"""Seconds of work on a device: at its ceilings, at least, and by the model that is fitted to it.

    seconds(operator) = sum over terms of weight[kind, term] * seconds of the term at the ceilings

The terms say what limits an operator, the weights how far from its limits the kernels of its kind
stay: a weight of 1 is a kernel that nothing but that limit holds up. Of a machine that was measured
they are fitted (`fit.py`); a device that is only described has ones, so that nothing is faster.
"""

from dataclasses import astuple, dataclass, fields, replace

from dlrm.planning.caches import UNCHANGED, Levels, miss
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.record import Record
from dlrm.planning.work import Work

OTHER = "other"
"""What a step takes beside its operators."""
COPY_TRAFFIC = 1.5
"""Bytes that memory moves for each that a copy reads or writes: before a line is overwritten it is
read. An update in place, which needs no such read, is that much faster."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds of an operator, by what they are spent on."""

    calls_s: float = 0.0
    """Seconds of starting kernels."""
    compute_s: float = 0.0
    """Seconds of arithmetic."""
    stream_s: float = 0.0
    """Seconds of bytes in order."""
    latency_s: float = 0.0
    """Seconds of waiting for rows at random places."""
    transfer_s: float = 0.0
    """Seconds of moving such rows, beyond the first line of each."""

    @property
    def total_s(self) -> float:
        """Seconds where nothing overlaps."""
        return sum(astuple(self))

    @property
    def memory_s(self) -> float:
        """Seconds on memory."""
        return self.stream_s + self.latency_s + self.transfer_s

    @property
    def bound(self) -> str:
        """Name of the longest part: compute, memory bandwidth, memory latency or calls."""
        parts = {
            "compute": self.compute_s,
            "memory bandwidth": self.stream_s + self.transfer_s,
            "memory latency": self.latency_s,
            "calls": self.calls_s,
        }
        return max(parts, key=parts.__getitem__)

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, factor: float) -> "Terms":
        """Return every term times a factor."""
        return Terms(*(factor * seconds for seconds in astuple(self)))


ONES = (1.0,) * len(fields(Terms))


@dataclass(frozen=True, slots=True)
class Costs(Record):
    """The fitted model of a machine."""

    weights: dict[str, tuple[float, ...]]
    """Kind -> a weight for each field of `Terms`; one that is not there counts as `layers`."""
    error: float = 0.0
    """Median relative error of steps that it was not fitted to."""
    worst: float = 0.0
    """Error of the step in whose place nine of ten are better."""
    steps: int = 0
    """Steps that it was tested on; 0 of a described device."""
    cache_bytes: float = 0.0
    """Size of the last-level cache: bytes in order that it holds wait for cores, not for memory."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device: its ceilings, and weights that say how far from them kernels stay."""

    ceilings: Ceilings
    costs: Costs
    scale: float = 1.0
    """Times as long as all that takes, as measured steps of the model at hand say."""

    @classmethod
    def described(cls, flops: float, memory_bandwidth: float) -> "Device":
        """Return a device at the full rates that it is said to have: operations, bytes a second."""
        return cls(Ceilings(1, {1: memory_bandwidth}, {"fp32": {1: flops}}), Costs({}))

    def shared(self, processes: int) -> "Device":
        """Return one of several processes of one thread on this machine, see `Ceilings.shared`."""
        return replace(self, ceilings=self.ceilings.shared(processes))

    def terms(self, kind: str, work: Work, cache: tuple[float, float, float] = UNCHANGED) -> Terms:
        """Return what an operator of a kind takes, with a last-level cache as `Levels.scaled`."""
        fitted = self.costs.steps > 0
        at_ceilings = astuple(limits(work, self.ceilings, passes=fitted, cache=cache))
        weights = self.costs.weights.get(kind) or self.costs.weights.get("layers", ONES)
        terms = Terms(*(self.scale * w * t for w, t in zip(weights, at_ceilings, strict=True)))
        near_s = terms.stream_s * self._near(work, cache[0])
        return replace(terms, compute_s=terms.compute_s + near_s, stream_s=terms.stream_s - near_s)

    def cached_s(self, kind: str, work: Work) -> float:
        """Return the seconds of bytes that the caches hold, which `terms` counts as arithmetic."""
        far = replace(self, costs=replace(self.costs, cache_bytes=0.0))
        return far.terms(kind, work).stream_s * self._near(work, 1.0)

    def _near(self, work: Work, factor: float) -> float:
        """Return the share of bytes in order that a last-level cache holds, `factor` times ours."""
        moved = work.stream_bytes + work.passes_bytes
        return min(1.0, factor * self.costs.cache_bytes / max(moved, 1.0))


def limits(
    work: Work,
    ceilings: Ceilings,
    *,
    passes: bool = False,
    cache: tuple[float, float, float] = UNCHANGED,
) -> Terms:
    """Return the seconds of each term at a machine's ceilings, with all of its threads.

    `passes` is as our kernels do it: products in blocks of whole vectors, and with passes over what
    they write to read it again.
    """
    threads = ceilings.threads
    latency_s = transfer_s = 0.0
    visited = (*work.random, *(work.passes if passes else ()))
    if ceilings.gather:
        # Rows are written beside those that are read, or added up, or something in between.
        written = work.streamed
        for points, share in (
            (ceilings.gather, written), (ceilings.summed or ceilings.gather, 1 - written),
        ):  # fmt: skip
            levels = Levels.of(points).scaled(*cache)
            for rows in visited:
                first_s, rest_s = levels.row_s(rows)
                latency_s += share * rows.accesses * first_s
                transfer_s += share * rows.accesses * rest_s
    else:
        transfer_s = sum(rows.bytes for rows in visited) / ceilings.copy[threads]
    rates = ceilings.flops.get(work.dtype) or ceilings.flops["fp32"]
    products = sum(p.padded_flops if passes else p.flops for p in work.products)
    stream_bytes = work.stream_bytes + (work.passes_bytes if passes else 0.0)
    return Terms(
        calls_s=work.calls * ceilings.call_s,
        compute_s=products / rates[threads] + work.scalar_flops / ceilings.flops["fp32"][threads],
        stream_s=stream_bytes / stream_rate(stream_bytes, ceilings),
        latency_s=latency_s,
        transfer_s=transfer_s,
    )


def stream_rate(size_bytes: float, ceilings: Ceilings) -> float:
    """Return the bytes a second, read and written in order, of so many that are passed over.

    What the caches hold is passed over faster than memory copies: as fast as the longest rows that
    were measured are read from a table of that size, and written.
    """
    longest = max((point.row_bytes for point in ceilings.gather), default=0)
    copied = ceilings.copy[ceilings.threads]
    return max(copied, 2 * longest / ceilings.row_s(size_bytes, longest)) if longest else copied


def least(
    work: Work, ceilings: Ceilings, cache_bytes: float, *, near: bool = False
) -> tuple[float, str]:
    """Return the roofline of an operator: the longest of what its limits ask for.

        compute   operations, at the highest rate of products
        rows      rows at random places, as fast as they can be read from tables of that size
        bytes     bytes in order, and rows that no cache holds, at the speed of memory; within a
                  step what an operator reads was often written just before: bytes that the caches
                  hold count at their speed there

    Where a step is predicted these are added up, because an operator mostly waits for one after the
    other. What is least is less: processors fetch rows while they stream, and what a row is written
    back to is already there.

    Args:
        work: Work of the operator.
        ceilings: Ceilings of the machine.
        cache_bytes: Size of its last-level cache.
        near: Whether it runs within a step.

    Returns:
        The seconds, and what takes them: or calls, where these alone take longer.

    """
    read = replace(work, random=tuple(replace(rows, written=False) for rows in work.random))
    terms = limits(read, ceilings)
    # Where rows were measured only while they were written, lines beyond the first of a row count
    # as far as this operator streams as much beside them: bags that are added up write little.
    moved = 1.0 if ceilings.summed else work.streamed
    far = sum(rows.bytes * miss(rows, cache_bytes) for rows in work.random)
    memory = COPY_TRAFFIC * ceilings.copy[ceilings.threads]
    rate = max(memory, stream_rate(work.stream_bytes, ceilings)) if near else memory
    parts = {
        "compute": terms.compute_s,
        "memory latency": terms.latency_s + moved * terms.transfer_s,
        "memory bandwidth": work.stream_bytes / rate + far / memory,
    }
    seconds = max(parts.values())
    parts["calls"] = terms.calls_s
    return seconds, max(parts, key=parts.__getitem__)
