"""Measuring a machine with tiny tables and products and no time to look at them."""

from pathlib import Path

import pytest

from dlrm.bench.machine import gather, machine, measure, probe, products


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let ceilings be measured in a moment, and machines be kept in this folder."""
    monkeypatch.setattr(machine, "folder", lambda: folder)
    monkeypatch.setattr(probe, "ROUNDS", 1)
    monkeypatch.setattr(probe, "MOST_S", 0.0)
    monkeypatch.setattr(probe, "SAMPLES", 2)
    monkeypatch.setattr(probe, "TRY_S", 0.0)
    monkeypatch.setattr(probe, "VISIT_S", 0.0)
    monkeypatch.setattr(products, "SHAPES", ((32, 32, 32), (64, 32, 32)))
    monkeypatch.setattr(gather, "LEAST_ROWS", 16)
    monkeypatch.setattr(gather, "OUT_BYTES", 1 << 12)
    monkeypatch.setattr(measure, "STORE_BYTES", 1 << 18)
    monkeypatch.setattr(measure, "cache_bytes", lambda: 1 << 16)
