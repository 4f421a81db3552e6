"""The command line on several processes: as one command, when one is lost, and under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dlrm.cli import main
from dlrm.run import Run

SMALL = [
    "--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--loader.batch-size", "60",
    "--precision", "fp32", "--log-every", "1", "--threads", "1", "--no-baseline",
]  # fmt: skip
LONG = ["--epochs", "9", "--max-steps", "200", "--checkpoint.every", "20", "--eval.every", "100"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
START_S = 90


def words(data: Path, run: Path, *more: str) -> list[str]:
    return ["train", "demo", "--data", str(data), "--run", str(run), *SMALL, *more]


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV
    )


def rank_of(run: Path, rank: int) -> int:
    """Wait for the first checkpoint of a run, and return the process of a rank."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if any((run / "checkpoints").glob("step-*")):
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    said = (path / "environ").read_bytes().split(b"\0")
                    command = (path / "cmdline").read_bytes()
                except OSError:
                    continue
                if f"RANK={rank}".encode() in said and str(run).encode() in command:
                    return int(path.name)
        time.sleep(0.02)
    raise TimeoutError(f"{run} did not begin")


def rows(run: Path) -> list[dict[str, Any]]:
    timed = ("elapsed_s", "samples_per_s", "loading_share", "processes")
    return [
        {key: value for key, value in row.items() if key not in timed}
        for row in Run.open(run).metrics()
        if row["event"] != "resumed"
    ]


def test_two_processes_lose_one_go_on_and_reach_what_one_reaches(clicks, tmp_path, capfd):
    one, two = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-m", "dlrm"]
    process = start(*command, *words(clicks.path, two, *LONG, "--procs", "2"))
    lost = rank_of(two, 1)
    os.kill(lost, signal.SIGKILL)
    _, err = process.communicate(timeout=START_S)
    assert process.returncode == 3
    assert f"process {lost}) no longer answers" in err
    assert "rank 1 was killed by SIGKILL" in err
    assert f"dlrm train --run {two} --resume --procs 2" in err
    assert main(["train", "--run", str(two), "--resume", "--procs", "2", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["run"] == str(two)
    assert (two / "report.html").is_file()

    # In a process of its own, as theirs are: which kernels compute does not depend on other tests.
    alone = start(*command, *words(clicks.path, one, *LONG))
    alone.communicate(timeout=START_S)
    assert alone.returncode == 0
    for ours, theirs in zip(rows(one), rows(two), strict=True):
        assert theirs == {
            key: pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            for key, value in ours.items()
        }
    losses = [[row["loss"] for row in rows(run) if row["event"] == "train"] for run in (one, two)]
    assert len(losses[0]) == 200
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) <= 1e-6


def test_torchrun_starts_a_run_anew_where_it_was(clicks, tmp_path):
    run = tmp_path / "run"
    process = start(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--max-restarts", "1", "--monitor-interval", "0.1", "-m", "--", "dlrm",
        *words(clicks.path, run, *LONG),
    )  # fmt: skip
    os.kill(rank_of(run, 1), signal.SIGKILL)
    out, err = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, err
    assert out.count("Next: dlrm ") == 1
    steps = [row["step"] for row in rows(run) if row["event"] == "train"]
    assert steps == list(range(1, 201))
    assert any(row["event"] == "resumed" for row in Run.open(run).metrics())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--procs", "0"], "--procs is 0"),
        (["--procs", "61"], "loader.batch_size is 60, and there are 61 processes"),
        (["--procs", "2", "--parallel.device-memory", "1kB"], "2 devices of 1.0 kB have 2.0 kB"),
        (["--procs", "2", "--parallel.timeout-s", "0"], "parallel.timeout_s is 0.0"),
    ],
)
def test_what_cannot_be_is_said_before_a_process_is_started(clicks, tmp_path, capsys, more, said):
    assert main(words(clicks.path, tmp_path / "run", *more)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
