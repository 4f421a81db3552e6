"""A run on two hosts: over a cable that loses packets, and gone on after it was plugged out."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from .hosts import Host, missing, start_ranks, two_hosts
from .test_procs import LONG, rows, words

reason = missing()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")


def start(pair: tuple[Host, Host], command: list[str]) -> list[subprocess.Popen[str]]:
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return start_ranks(pair, [sys.executable, "-m", "dlrm", *command], {}, **told)


def wait_for_checkpoint(run: Path) -> None:
    end = time.monotonic() + 90
    while not any((run / "checkpoints").glob("step-*")):
        assert time.monotonic() < end, "the run did not begin"
        time.sleep(0.02)


def test_a_run_on_two_hosts_outlives_a_cable_that_loses_packets_and_goes(clicks, tmp_path):
    run = tmp_path / "run"
    timeout = ["--parallel.timeout-s", "10"]
    with two_hosts() as pair:
        pair[0].lose()
        processes = start(pair, words(clicks.path, run, *LONG, *timeout))
        wait_for_checkpoint(run)
        pair[1].plug(False)
        said = [process.communicate(timeout=90)[1] for process in processes]
        assert [process.returncode for process in processes] == [3, 3], said
        for rank, other in ((0, 1), (1, 0)):
            assert f"rank {other} (host {pair[other].name}, process" in said[rank]
            assert "no longer answers" in said[rank]
            assert "go on with --resume" in said[rank]
    with two_hosts() as pair:
        processes = start(pair, ["train", "--run", str(run), "--resume"])
        said = [process.communicate(timeout=90) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        assert "Next: dlrm " in said[0][0]
        assert not said[1][0]
    steps = [row["step"] for row in rows(run) if row["event"] == "train"]
    assert steps == list(range(1, 201))
