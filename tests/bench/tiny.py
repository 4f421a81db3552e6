"""Measuring with tiny tables and products and no time to look at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dlrm.bench import known, machine, probe
from dlrm.bench.numerics import study
from dlrm.bench.watch import Seen, Watch
from dlrm.planning import machine as kept_machine


@contextmanager
def speeds_of_a_moment() -> Iterator[None]:
    """Let variants be timed in a moment, on one thread: small models are fastest so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ROUND_S", 0.0)
        patch.setattr(study, "ROUNDS", 2)
        yield
    torch.set_num_threads(before)


class Fixed(Watch):
    """A watch that saw what a test says, whatever else this machine does.

    Args:
        fixed: What it saw.

    """

    def __init__(self, fixed: Seen):
        self.fixed = fixed

    @property
    def seen(self) -> Seen:
        """The same at any time."""
        return self.fixed


QUIET = Seen(threads=1, cores=1, load=0.0, steal_share=0.0, others_share=0.0)


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let ceilings be measured in a moment, and machines be kept in this folder."""

    def path(fingerprint: str, threads: int) -> Path:
        return folder / f"{fingerprint}-{threads}.json"

    monkeypatch.setattr(kept_machine, "_path", path)
    monkeypatch.setattr(known, "Watch", lambda: Fixed(QUIET))
    monkeypatch.setattr(probe, "Watch", lambda: Fixed(QUIET))
    monkeypatch.setattr(probe, "ROUNDS", 1)
    monkeypatch.setattr(probe, "MOST_S", 0.0)
    monkeypatch.setattr(probe, "SAMPLES", 2)
    monkeypatch.setattr(probe, "TRY_S", 0.0)
    monkeypatch.setattr(probe, "VISIT_S", 0.0)
    monkeypatch.setattr(machine, "SHAPES", ((32, 32, 32), (64, 32, 32)))
    monkeypatch.setattr(machine, "LEAST_ROWS", 16)
    monkeypatch.setattr(machine, "OUT_BYTES", 1 << 12)
    monkeypatch.setattr(machine, "STORE_BYTES", 1 << 18)
    monkeypatch.setattr(machine, "CACHE_BYTES", 1 << 15)
