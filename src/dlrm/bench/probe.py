"""How a ceiling is measured: the fastest of several ways, a little at a time, in turns.

Every ceiling is visited once a round, so that what disturbs the machine for a second disturbs
one visit of some of them, not all of one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from dlrm.bench.timer import Timing
from dlrm.bench.watch import Watch

ROUNDS = 4
MOST_S = 15.0
"""After so long no round is repeated."""
VISIT_S = 0.025
"""Time of a visit, beside its preparation."""
SAMPLES = 6
"""Values a visit, each the mean of as many runs as fit."""
TRIES = 3
"""Values of each way from which the fastest way is chosen."""
TRY_S = 0.006
"""Time of each way to warm up, and to be tried; some ways are the faster only in the long run."""
PATIENCE_S = 0.02
"""A larger product is tried only if it takes no longer than this."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing something."""

    kind: str
    """Ways of one kind run at similar rates: a small one says how long a large one takes."""
    amount: float
    """What a run does: bytes, operations, rows or calls."""
    run: Callable[[], object]


@dataclass(slots=True)
class Probe:
    """A ceiling that is being measured."""

    name: str
    threads: int
    ways: Sequence[Way]
    prepare: Callable[[], object] = field(default=lambda: None)
    """Called before each visit, not timed."""
    seconds: list[float] = field(default_factory=list)
    """A value a sample: of one unit of the amount."""
    chosen: Way | None = None
    """The fastest way."""

    @property
    def rate(self) -> float:
        """Amount/s; median."""
        return 1 / Timing(self.name, self.seconds).median

    @property
    def spread(self) -> float:
        """Half the width of the 95% interval of the median, as a share of it."""
        timing = Timing(self.name, self.seconds)
        low, high = timing.interval
        return (high - low) / 2 / timing.median

    def visit(self) -> None:
        """Measure for a moment, at first also which way is the fastest."""
        torch.set_num_threads(self.threads)
        self.prepare()
        self.chosen = self.chosen or fastest(self.ways)
        if self.chosen is None:
            return
        self.chosen.run()
        began = time.perf_counter()
        for _ in range(SAMPLES):
            self.seconds.append(_unit_s(self.chosen, VISIT_S / SAMPLES))
            if time.perf_counter() - began > 2 * VISIT_S:
                break

    def forget(self) -> None:
        """Begin anew."""
        self.seconds, self.chosen = [], None


def visit_all(probes: Sequence[Probe], tick: Callable[[float], None]) -> bool:
    """Visit every probe once a round; what cannot be done stays without seconds.

    Rounds in which something else computed do not count, because threads that wait for one that has
    no core are slower a hundredfold. They are repeated for up to `MOST_S`. `tick` is told the share
    that is done.

    Returns:
        Whether any round was quiet; if none was, what stands is the last one.

    """
    threads, began = torch.get_num_threads(), time.perf_counter()
    quiet, first = 0, True
    try:
        while first or (quiet < ROUNDS and time.perf_counter() - began < MOST_S):
            if not quiet:
                for probe in probes:
                    probe.forget()
            before = [len(probe.seconds) for probe in probes]
            with torch.no_grad(), Watch() as watch:
                for done, probe in enumerate(probes, start=1):
                    probe.visit()
                    tick((quiet + done / len(probes)) / ROUNDS)
            if not watch.seen.disturbed:
                quiet += 1
            elif quiet:
                for probe, count in zip(probes, before, strict=True):
                    del probe.seconds[count:]
            first = False
    finally:
        torch.set_num_threads(threads)
    tick(1.0)
    return quiet > 0


def fastest(ways: Sequence[Way]) -> Way | None:
    """Return the way with the highest rate, smaller amounts first; None if all of them fail."""
    rates: dict[str, float] = {}
    best, most = None, 0.0
    for way in ways:
        if way.kind in rates and way.amount / rates[way.kind] > PATIENCE_S:
            continue
        try:
            _unit_s(way, TRY_S)
            rate = 1 / min(_unit_s(way, TRY_S / TRIES) for _ in range(TRIES))
        except RuntimeError:
            # Not every torch multiplies every type on every CPU.
            continue
        rates[way.kind] = rate
        if rate > most:
            best, most = way, rate
    return best


def _unit_s(way: Way, least_s: float) -> float:
    """Return the seconds of a unit, from as many runs as take so long, at least one."""
    runs, taken = 0, 0.0
    started = time.perf_counter()
    while not runs or taken < least_s:
        way.run()
        runs += 1
        taken = time.perf_counter() - started
    return taken / runs / way.amount
