"""Copies far outside of the caches, and calls that do next to nothing."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dlrm.bench.machine.probe import Probe, Way

CALLS = 200
"""In a row, so that reading the clock does not count."""


def copies(store: Tensor, threads: Sequence[int]) -> Iterator[Probe]:
    """Return what measures copies, in bytes read plus bytes written, named e.g. `copy 2`.

    Args:
        store: float32, flat, many times as large as all caches; its first quarter is copied.
        threads: Numbers of threads.

    """
    source, target = store.chunk(4)[:2]
    ways = [Way("copy", 2 * source.nbytes, lambda: target.copy_(source))]
    for each in threads:
        yield Probe(f"copy {each}", each, ways)


def calls(threads: int) -> Probe:
    """Return what measures a smallest operation of torch, named `call`."""
    one = torch.zeros(1)

    def several() -> None:
        for _ in range(CALLS):
            one.add_(one)

    return Probe("call", threads, [Way("add", CALLS, several)])
