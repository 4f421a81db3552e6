"""`dlrm bench serve` on a small run, for moments. No test looks at how fast anything was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dlrm.bench.load import measure as measurements
from dlrm.bench.results import load
from dlrm.cli import main
from recipes import tables

LITTLE = [
    *("--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--no-baseline"),
    *("--max-steps", "4"),
]
QUICK = ["--seconds", "0.05", "--trials", "3", "--connections", "4"]
FIGURES = ("requests_per_s", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table with numbers, categories and a list."""
    folder = tmp_path_factory.mktemp("served")
    before = Path.cwd()
    os.chdir(folder)
    try:
        tables.visits(Path("visits.csv"), Path("tomorrow.csv"))
        assert main(["train", "visits.csv", "--label", "bought", *LITTLE, "--run", "visits"]) == 0
    finally:
        os.chdir(before)
    return folder / "visits"


@pytest.fixture(autouse=True)
def moments(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    monkeypatch.setattr(measurements, "FLOOR_S", 0.02)
    monkeypatch.setattr(measurements, "PROBE_S", 0.02)
    monkeypatch.setattr(measurements, "CURVE", (0.3, 0.6))


def bench(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    assert main(["bench", "serve", *QUICK, *words, "--json"]) == status
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_one_model(run: Path, workdir: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--latency-ms", "1000,2000", "--out", "rows.jsonl", "--html", "page.html"]
    said = bench(capsys, str(run), *words)
    rows = said["rows"]
    whats = [row["what"] for row in rows]
    assert list(dict.fromkeys(whats)) == ["floor", "offline", "single", "server", "largest"]
    assert [row["of"] for row in rows if row["what"] == "floor"] == ["generator", "http"]
    assert all(row["suite"] == "serve" for row in rows)
    for row in rows:
        if row["what"] in ("offline", "single", "server"):
            assert all(row[name] > 0 for name in FIGURES)
            assert (row["model"], row["sizes"], row["batch"], row["delay"]) == (
                *("visits", "1", 1024),
                "0 ms",
            )
            assert (row["failed"], row["data"]) == (0, "own")
    largest = [row for row in rows if row["what"] == "largest"]
    assert [row["within"] for row in largest] == ["1000 ms", "2000 ms"]
    arrivals = [row for row in rows if row["what"] == "server"]
    assert len(arrivals) == 2 + sum(len(row["trials"]) for row in largest)
    assert "visits, 1 row a request: " in said["verdict"]
    assert said["floor"].startswith("The generator alone schedules ")
    assert [row["what"] for row in load(Path("rows.jsonl"))] == whats
    html = Path("page.html").read_text()
    assert "Latency over offered rate: visits, 1 row a request" in html
    # The files of MLPerf's generator are nowhere here.
    assert sorted(path.name for path in workdir.iterdir()) == ["page.html", "rows.jsonl"]
    # What is written can be drawn and compared again.
    assert main(["bench", "report", "rows.jsonl", "--html", "again.html", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["rows"], report["older"]) == (len(rows), 0)
    assert main(["bench", "diff", "rows.jsonl", "rows.jsonl"]) == 0


def test_several_sizes_and_settings(run: Path, capsys: pytest.CaptureFixture[str]):
    said = bench(
        capsys,
        *(f"a={run}", "--sizes", "2,mlperf", "--rates", "20,40", "--trials", "0"),
        *("--batch", "1,8", "--delay-ms", "1", "--server=--tables int8", "--html", "page.html"),
    )
    rows = said["rows"]
    grid = [(row["batch"], row["delay"]) for row in rows if row["what"] == "grid"]
    assert grid == [(1, "1 ms"), (8, "1 ms")]
    assert [row["rate"] for row in rows if row["what"] == "server"] == [20, 40] * 2
    assert {row["server"] for row in rows if "model" in row} == {"--tables int8"}
    for row in rows:
        if row["what"] == "offline" and row["sizes"] == "2":
            assert row["rows_per_s"] == pytest.approx(2 * row["requests_per_s"])
    assert (
        "Rows/s, all at once: a (--tables int8), 2 rows a request" in Path("page.html").read_text()
    )


def test_models_beside_each_other(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert measurements._groups("abc") == [
        *(["a", "a"], ["a", "b"], ["a", "c"], ["b", "b"], ["b", "c"], ["c", "c"]),
        ["a", "b", "c"],
    ]
    monkeypatch.setattr(measurements, "_groups", lambda names: [["a", "a"], list(names)])
    words = [f"a={run}", f"b={run}", "--rates", "20", "--trials", "0", "--html", "page.html"]
    rows = bench(capsys, *words)["rows"]
    pairs = [(row["model"], row["beside"]) for row in rows if row["what"] == "beside"]
    assert pairs == [("a", "a"), ("a", "a"), ("a", "b"), ("b", "a")]
    for row in rows:
        if row["what"] == "beside":
            assert row["processes"] == 2
            assert row["slowdown"] > 0
            assert row["p50_slowdown"] > 0
            assert row["p99_slowdown"] > 0
    assert "Slowdown of p99 beside another, 1 row a request" in Path("page.html").read_text()


def test_ctrl_c_keeps_what_was_measured(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measurements._Measurement, "largest", stop)
    said = bench(capsys, str(run), "--out", "rows.jsonl", status=130)
    assert said["stopped"]
    whats = [row["what"] for row in load(Path("rows.jsonl"))]
    assert whats == ["floor", "floor", "offline", "single", "server", "server"]
    assert [row["what"] for row in said["rows"]] == whats


def test_a_signal_ends_the_server_too(run: Path):
    command = [sys.executable, "-m", "dlrm", "bench", "serve", str(run), "--seconds", "60"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (children := _serving(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _serving(parent: int) -> list[int]:
    """Return the processes of `dlrm serve` that another one has started."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in pids if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--sizes", "many"], '"many" is no size of queries'),
        (["--latency-ms", "0"], '--latency-ms is "0"'),
        (["--delay-ms", "-1"], '--delay-ms is "-1"'),
        (["--seconds", "0"], "--seconds is 0"),
        (["--server=--runtime nothing"], "dlrm serve has ended: dlrm: error: unknown runtime"),
        (["--server=--limits.body-bytes 10"], "the server answers 413"),
        (["other/visits"], 'two runs are called "visits"'),
    ],
)
def test_what_has_no_meaning_is_said(
    run: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["bench", "serve", *QUICK, str(run), *words]) == 1
    assert problem in capsys.readouterr().err


def test_without_a_run_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "serve", "nowhere", *QUICK]) == 1
    assert "nowhere" in capsys.readouterr().err
