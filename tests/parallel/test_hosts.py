"""Ranks on two hosts, and a cable between them that goes."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from .hosts import missing, start_ranks, two_hosts

CHILD = [sys.executable, str(Path(__file__).parent / "child.py")]

reason = missing()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")


def go_on(folder: Path, processes: list[Popen[bytes]], until: Callable[[], bool]) -> None:
    """Wait until the ranks have exchanged numbers, and `until` is true as well."""
    end = time.monotonic() + 60
    before = steps(folder)
    while steps(folder) < before + 10 or not until():
        assert time.monotonic() < end, "the ranks do not go on"
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.02)


def steps(folder: Path) -> int:
    path = folder / "steps-0"
    return path.stat().st_size if path.exists() else 0


def test_two_hosts_and_the_cable_between_them(tmp_path: Path):
    with two_hosts() as pair:
        command = [*CHILD, str(tmp_path), "none", "0"]
        processes = start_ranks(pair, command, {"TIMEOUT_S": "5", "NUMBERS": "20000"})
        go_on(tmp_path, processes, lambda: True)

        pair[0].lose()
        go_on(tmp_path, processes, lambda: pair[0].lost() > 20)

        for _ in range(3):
            pair[1].plug(False)
            time.sleep(0.2)
            pair[1].plug(True)
        go_on(tmp_path, processes, lambda: True)

        pair[1].plug(False)
        # Nothing tells a rank that the other is gone: it waits for its timeout, then asks around.
        assert [process.wait(60) for process in processes] == [1, 1]
        for rank, other in ((0, 1), (1, 0)):
            said = (tmp_path / f"error-{rank}").read_text()
            assert f"WorldError: rank {other} (host {pair[other].name}, process" in said
            # Of two exchanges at once one times out, and takes the other with it.
            why = "Timed out( waiting 5000ms|, with another exchange)"
            assert re.search(f"no longer answers: {why}", said)
