"""The least that work takes at a machine's measured ceilings."""

from dlrm.bench.cost.caches import Levels
from dlrm.bench.cost.work import Terms, Work
from dlrm.planning.ceilings import Ceilings


def limits(
    work: Work,
    ceilings: Ceilings,
    *,
    passes: bool = False,
    cache: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> Terms:
    """Return the seconds of each term with all threads of the machine.

    Args:
        work: Of an operator.
        ceilings: Of the machine.
        passes: Whether as our kernels do it: products in blocks of whole vectors, and with passes
            over what they write to read it again.
        cache: See `Levels.scaled`.

    """
    levels = Levels.of(ceilings.gather).scaled(*cache)
    latency_s = transfer_s = 0.0
    for each in (*work.random, *(work.passes if passes else ())):
        first_s, rest_s = levels.row_s(each)
        latency_s += each.accesses * first_s
        transfer_s += each.accesses * rest_s
    threads = ceilings.threads
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
    if not longest:
        return copied
    return max(copied, 2 * longest / ceilings.row_s(size_bytes, longest))
