"""The roofline of an operator: the longest of what its limits ask for, each by itself.

    compute   operations, at the highest rate of products
    rows      rows at random places, as fast as they can be read from tables of that size
    bytes     bytes in order, and rows that no cache holds, at the speed of memory; within a step
              what an operator reads was often written just before: bytes that the caches hold
              count at their speed there

Where a step is predicted these are added up, because an operator mostly waits for one after the
other. What is least is less: processors fetch rows while they stream, and what a row is written
back to is already there.
"""

from dataclasses import replace

from dlrm.bench import batches
from dlrm.bench.cost.caches import miss
from dlrm.bench.cost.limits import limits, stream_rate
from dlrm.bench.cost.work import Work
from dlrm.planning.ceilings import Ceilings

COPY_TRAFFIC = 1.5
"""Bytes that memory moves for each that a copy reads or writes: before a line is overwritten it is
read. An update in place, which needs no such read, is that much faster."""


def least(work: Work, ceilings: Ceilings, *, near: bool = False) -> tuple[float, str]:
    """Return the seconds, and what takes them: or calls, where these alone take longer.

    Args:
        work: Of the operator.
        ceilings: Of the machine.
        near: Whether it runs within a step.

    """
    read = replace(work, random=tuple(replace(each, written=False) for each in work.random))
    terms = limits(read, ceilings)
    # The measured curve writes every row that it reads. Lines beyond the first of a row count only
    # as far as this operator streams as much beside them: bags that are added up write little.
    rows_bytes = sum(each.bytes for each in read.random)
    streamed = min(1.0, work.stream_bytes / rows_bytes) if rows_bytes else 0.0
    far = sum(each.bytes * miss(each, batches.cache_bytes()) for each in work.random)
    memory = COPY_TRAFFIC * ceilings.copy[ceilings.threads]
    rate = max(memory, stream_rate(work.stream_bytes, ceilings)) if near else memory
    parts = {
        "compute": terms.compute_s,
        "memory latency": terms.latency_s + streamed * terms.transfer_s,
        "memory bandwidth": work.stream_bytes / rate + far / memory,
    }
    seconds = max(parts.values())
    parts["calls"] = terms.calls_s
    return seconds, max(parts, key=parts.__getitem__)
