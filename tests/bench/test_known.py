"""What is kept of a machine, and when it is measured again."""

from dataclasses import replace

import pytest
import torch

from bench.machines import machine
from dlrm import __version__
from dlrm.bench import known
from dlrm.planning.machine import Machine

HERE = {"torch": torch.__version__, "dlrm": __version__}


@pytest.mark.parametrize(
    ("versions", "costs", "counts"),
    [
        (HERE, True, True),
        (HERE, False, False),
        (HERE | {"torch": "1.0"}, True, False),
        (HERE | {"dlrm": "0.0.1"}, True, False),
        ({}, True, False),
    ],
)
def test_what_other_kernels_reached_does_not_count(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], costs: bool, counts: bool
) -> None:
    found = replace(machine(), versions=versions)
    found = found if costs else replace(found, costs=None)
    fresh = machine()

    def measured(bar: object) -> Machine:
        return fresh

    monkeypatch.setattr(known, "load", lambda: found)
    monkeypatch.setattr(known, "measured", measured)
    assert known.known() is (found if counts else fresh)
