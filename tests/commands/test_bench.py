"""`dlrm bench original` and `embedding` on tiny models. No test looks at how fast anything was."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import machines
from dlrm import cli
from dlrm.bench import batches, timer
from dlrm.bench.arch import Arch
from dlrm.bench.rivals import loading
from dlrm.bench.rivals import tables as embedding_bench
from dlrm.bench.rivals import training as training_bench
from dlrm.commands.bench import peers
from dlrm.commands.bench.peers import bench_original as original
from dlrm.errors import ConfigError
from dlrm.ops import describe

GUIDE = Path(__file__).parents[2] / "docs/guides/speed.md"
TINY = ["--rows-scale", "0.0005", "--batch", "8", "--rounds", "2"]
ROW = ("batch_size", "steps", "rounds", "ours_ms", "ours_ms_min", "ours_interval", "samples_per_s")
LIMIT = ("roofline_ms", "roofline_share", "roofline_gemm_ms", "roofline_embedding_ms")
MACHINE = ("cpu", "cores", "threads", "load", "torch")


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few batches, few steps a round, and a machine that need not be measured."""
    monkeypatch.setattr(batches, "cache_bytes", lambda: 10_000)
    monkeypatch.setattr(timer, "ROUND_SAMPLES", 16)
    monkeypatch.setattr(peers, "known", machines.machine)
    monkeypatch.setattr(loading, "ROWS", 64)
    monkeypatch.setattr(loading, "EPOCH_ROWS", 64)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> dict[str, Any]:
        assert cli.main([*words, *TINY, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_train_alone_is_measured_against_the_limit(run: Run, precision: str) -> None:
    result = run("bench", "original", "--precision", precision)
    assert result["arch"] == "criteo-kaggle"
    assert result["precision"] == precision
    assert result["speedup"] == {"8": None}
    assert result["max_abs_diff"] is None
    (row,) = result["batches"]
    assert all(key in result for key in MACHINE)
    assert (f"mlp {precision} below 512" in result["products"]) == (describe() != "reference")
    assert all(row[key] is not None for key in (*ROW, *LIMIT))
    assert (row["batch_size"], row["rounds"]) == (8, 2)
    assert row["samples_per_s"] == pytest.approx(8e3 / row["ours_ms"])
    assert row["roofline_share"] == pytest.approx(row["roofline_ms"] / row["ours_ms"])
    low, high = row["ours_interval"]
    assert row["ours_ms_min"] <= low <= row["ours_ms"] <= high


def test_train_with_loading(run: Run) -> None:
    (row,) = run("bench", "original", "--loading", "--ids", "zipf")["batches"]
    assert row["ours_loading_ms"] > 0
    assert 0 <= row["loading_waited_share"] <= 1
    assert row["loading_epoch_rows"] == 64


def test_the_check_of_ids_is_a_share_of_the_step(run: Run) -> None:
    (row,) = run("bench", "original")["batches"]
    low, high = row["id_check_interval"]
    assert row["id_check_ms_min"] <= low <= row["id_check_ms"] <= high
    assert row["id_check_share"] > 0


@pytest.mark.parametrize("command", ["original", "embedding"])
def test_tables_in_fewer_bits(
    run: Run, command: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, name = {
        "original": (training_bench, "LocalStep"),
        "embedding": (embedding_bench, "Tables"),
    }[command]
    real, stored = getattr(measured, name), []

    def ours(arch: Arch, *more: Any) -> Any:
        stored.append(arch.model.tables.storage)
        return real(arch, *more)

    monkeypatch.setattr(measured, name, ours)
    assert run("bench", command, "--storage", "split", "--out", "rows.jsonl")["storage"] == "split"
    assert json.loads(Path("rows.jsonl").read_text())["storage"] == "split"
    assert stored == ["split"]


def test_rows_of_results_are_kept_where_asked(run: Run, workdir: Path) -> None:
    run("bench", "original", "--out", "rows.jsonl")
    run("bench", "embedding", "--out", "rows.jsonl")
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["suite"] for row in rows] == ["original", "embedding"]
    for row in rows:
        assert all(row[key] is not None for key in (*ROW[:-1], *MACHINE, "ids", "optim", "commit"))
    assert sorted(path.name for path in workdir.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad"])
def test_embedding_beside_what_torch_has(
    run: Run, optim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrm.bench.rivals.tables.unavailable", lambda optimizer: "not here")
    result = run("bench", "embedding", "--optim", optim)
    (row,) = result["batches"]
    assert result["left_out"]["fbgemm"] == "not here"
    assert ("bags" in result["left_out"]) == (optim == "rowwise_adagrad")
    if optim == "rowwise_adagrad":
        assert result["left_out"]["bags"] == "torch has no rowwise_adagrad"
        assert not any(key.startswith("bags") for key in row)
    else:
        low, high = row["bags_speedup_interval"]
        assert low <= row["bags_speedup"] <= high
        assert row["bags_verdict"]


def test_a_missing_peer_says_why() -> None:
    assert embedding_bench.unavailable("adam") == "on the CPU it has no adam"
    reason = embedding_bench.unavailable()
    assert reason is None or reason.startswith("fbgemm-gpu-cpu cannot be imported (")


def test_tables_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "original", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "Training step, criteo-kaggle" in shown
    assert "dlrm bench original CLONE" in shown
    assert cli.main(["bench", "embedding", *TINY]) == 0
    assert "Embedding tables, criteo-kaggle" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["original", "embedding"])
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('unknown arch "kaggle"; choose one of: criteo-kaggle', ["--arch", "kaggle"]),
        ("rounds is 0, expected at least 1", ["--rounds", "0"]),
        ("rows-scale is 2.0, expected above 0", ["--rows-scale", "2"]),
        ('batch is "many"', ["--batch", "many"]),
        ('unknown optimizer "lion"; choose one of: sgd', ["--optim", "lion"]),
    ],
)
def test_settings_without_meaning_are_quoted(
    command: str, message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", command, *words]) == 1
    assert message in capsys.readouterr().err


def test_a_clone_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a clone"):
        original(tmp_path, rows_scale=0.0005)


def test_the_commands_of_the_guide_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    lines = re.findall(r"^dlrm (bench (?:original|embedding).*)$", GUIDE.read_text(), re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        words = [word for word in shlex.split(line) if word not in ("--json", "path/to/dlrm")]
        for flag in ("--batch", "--rounds", "--rows-scale", "--out"):
            if flag in words:
                del words[words.index(flag) : words.index(flag) + 2]
        assert cli.main([*words, *TINY]) == 0
        assert capsys.readouterr().out
