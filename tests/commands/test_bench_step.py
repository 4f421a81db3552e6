"""`dlrm bench train` and `dlrm bench infer`, in process, on tiny models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.machines import machine
from dlrm import cli
from dlrm.bench import batches, step
from dlrm.commands.bench import step as bench_step
from dlrm.data.store import Dataset
from dlrm.ops.choice import choices
from dlrm.planning.what_if import more_threads

TINY = ["--rows-scale", "0.0001", "--rounds", "2", "--batch", "8"]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 10_000)
    monkeypatch.setattr(step, "ROUND_S", 0.0)
    monkeypatch.setattr(bench_step, "known", machine)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> dict[str, Any]:
        assert cli.main(["bench", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize("command", ["train", "infer"])
@pytest.mark.parametrize("arch", ["criteo-kaggle", "original-random", "figure6"])
def test_every_model_is_measured(run: Run, command: str, arch: str) -> None:
    result = run(command, arch, *TINY)
    (row,) = result["batches"]
    assert (result["arch"], result["model"], row["batch_size"]) == (arch, "dlrm", 8)
    assert result["pooling"] == {"original-random": 50.5}.get(arch, 1)
    assert result["fingerprint"] == machine().fingerprint
    assert len(result["tables"]) == (26 if arch == "criteo-kaggle" else 8)
    assert ("loss" in {each["name"] for each in row["operators"]}) == (command == "train")


def test_flags_of_a_run_hold(run: Run) -> None:
    words = ["--model.dim", "4", "--optim.name", "adagrad", "--optim.lr", "0.01", "--precision"]
    result = run(
        "train",
        "figure6",
        *TINY,
        *words,
        "fp32",
        "--model.tables.storage",
        "bf16",
        "--pooling",
        "3",
    )
    assert (result["dim"], result["optim"], result["precision"]) == (4, "adagrad", "fp32")
    assert (result["storage"], result["pooling"]) == ("bf16", 3)
    assert result["tables"][0]["row_bytes"] == 8
    assert run("train", "criteo-kaggle", "--model", "dcnv2", *TINY)["model"] == "dcnv2"


def test_an_optimizer_of_ones_own_is_measured(run: Run) -> None:
    result = run("train", "figure6", *TINY, "--optim.name", "sign_sgd:SignSGD")
    assert result["optim"] == "sign_sgd:SignSGD"
    operators = {each["name"]: each for each in result["batches"][0]["operators"]}
    # A row of 64 numbers, its gradient, and one number of state are read and written.
    assert operators["update"]["flops"] > 0
    assert operators["dense update"]["ms"] > 0


def test_data_of_ones_own_are_measured(run: Run, clicks: Dataset) -> None:
    words = ["--rounds", "2", "--batch", "64"]
    result = run("train", "demo", "--data", str(clicks.path), *words)
    assert result["ids"] == "data"
    (row,) = result["batches"]
    assert row["samples_per_s"] == pytest.approx(64e3 / row["step_ms"])
    assert cli.main(["bench", "train", "--data", str(clicks.path), "--rows-scale", "0.5"]) == 1


def test_another_machine_is_predicted(run: Run) -> None:
    change = "bandwidth=2x,cores=4,cache=64MB,precision=bf16"
    (row,) = run("train", *TINY, "--precision", "fp32", "--what-if", change)["batches"]
    found = row["what_if"]
    assert found["gain"] > 1
    assert found["model_error"] == 0.1
    assert found["change"]["cores"] == 2.0
    assert found["change"]["precision"] == "bf16"


def test_rows_are_kept_where_asked(run: Run, workdir: Path) -> None:
    run("train", *TINY, "--out", "rows.jsonl")
    run("infer", *TINY, "--out", "rows.jsonl")
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["suite"] for row in rows] == ["train", "infer"]
    for row in rows:
        assert row["schema"] == 1
        assert row["operators"]
        assert row["threads"]
        assert row["products"] == choices.used()
    assert cli.main(["bench", "diff", "rows.jsonl", "rows.jsonl"]) == 0
    assert sorted(path.name for path in workdir.iterdir()) == ["rows.jsonl"]


def test_a_page_is_drawn_where_asked(run: Run, workdir: Path) -> None:
    result = run("train", *TINY, "--html", "page.html")
    assert result["page"] == "page.html"
    page = Path("page.html").read_text()
    assert result["batches"][0]["verdict"][:20] in page
    assert machine().facts.cpu in page


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "train", "figure6", *TINY, "--what-if", "cores=8"]) == 0
    shown = capsys.readouterr().out
    for words in ("Machine ", "Round Numbers", "Model dlrm on figure6", "top MLP", "bound by"):
        assert words in shown
    said = " ".join(shown.split())
    assert "With cores 4x:" in said
    assert "by a model that is 10% off in the median" in said


def test_whole_tables_stand_beside_what_was_published(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from dlrm.bench.arch import ARCHS

    monkeypatch.setitem(ARCHS, "figure6", replace(ARCHS["figure6"], num_embeddings=(10, 20)))
    (row,) = run("train", "figure6", "--batch", "8", "--rounds", "2")["batches"]
    assert row["published_V100_s"] == 62
    assert row["published_ours_s"] == pytest.approx(2_048_000 / row["samples_per_s"])
    assert cli.main(["bench", "train", "figure6", "--batch", "8", "--rounds", "2"]) == 0
    assert "published: 256 s on a dual-socket Xeon" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('unknown model "kaggle"; choose one of: criteo-kaggle', ["kaggle"]),
        ("rounds is 1, expected at least 2", ["--rounds", "1"]),
        ("rows-scale is 2.0, expected above 0", ["--rows-scale", "2"]),
        ("pooling is -1, expected at least 1", ["--pooling", "-1"]),
        ('batch is "many"', ["--batch", "many"]),
        ('unknown what-if "gpus"; choose one of: cores', ["--what-if", "gpus=2", *TINY]),
        ("criteo-terabyte at batch 128 needs", ["criteo-terabyte"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "infer"])
def test_settings_without_meaning_are_quoted(
    command: str, message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", command, *words]) == 1
    assert message in capsys.readouterr().err


def test_a_batch_larger_than_the_data(clicks: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "train", "demo", "--data", str(clicks.path), "--batch", "9999"]
    assert cli.main(words) == 1
    assert "batch is 9,999, but" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "infer"])
def test_threads_are_those_that_are_measured_and_predicted(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, counts = torch.get_num_threads(), []

    def known():
        counts.append(torch.get_num_threads())
        return machine()

    monkeypatch.setattr(bench_step, "known", known)
    other = 1 if before > 1 else 2
    (row,) = run(command, "figure6", *TINY, "--threads", str(other))["batches"]
    assert counts == [other]
    assert row["threads"] == other
    assert torch.get_num_threads() == before


def operator(calls_ms: float, compute_ms: float) -> dict[str, Any]:
    terms = {"calls_ms": calls_ms, "compute_ms": compute_ms}
    terms |= dict.fromkeys(("stream_ms", "latency_ms", "transfer_ms"), 0.0)
    return {"terms": terms, "cache": [[1.0, 1.0]], "precision": {}, "rows": {}}


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 1.0), st.integers(1, 8), st.integers(1, 64))
def test_more_cores_do_not_make_calls_faster(share, threads, cores):
    exponents = {"compute": 1.0, "stream": 1.0, "latency": 1.0}
    row = {"operators": [operator(share, 1.0 - share)], "exponents": exponents}
    changes = more_threads(row, threads, cores)
    if threads >= cores:
        assert not changes
        return
    (change,) = changes
    # Amdahl's law.
    assert change.gain == pytest.approx(1 / (share + (1 - share) * threads / cores))
    assert change.gain <= 1 / max(share, threads / cores) + 1e-9
