"""`dlrm bench ops` on tiny settings. No test looks at how fast anything was."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from math import inf
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.machines import machine
from dlrm import cli
from dlrm.bench import batches, operators, sweep, timed
from dlrm.bench.operators import OPERATORS
from dlrm.bench.results import load
from dlrm.bench.timed import Outcome
from dlrm.commands.bench import ops
from dlrm.commands.bench.ops import OpsResult, sentences
from dlrm.ops.choice import choices

MACHINE = machine()
TINY = [
    "--batch", "4,8", "--tables", "3", "--rows", "20,1k", "--dim", "4", "--widths", "6-4-2",
    "--rounds", "2", "--threads", "1",
]  # fmt: skip
HERE = [name for name, operator in OPERATORS.items() if operator.processes == 1]
COUNTS = {"lookup": 4, "update": 4, "interaction": 2, "mlp": 2, "loss": 2, "dense_update": 1}
FIGURES = (
    "ms", "ms_low", "ms_high", "p95_ms", "warm_ms", "flops", "bytes", "lines", "gflops_per_s",
    "gb_per_s", "roofline_ms", "roofline_share", "bound",
)  # fmt: skip


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few inputs, short rounds, and a machine that need not be measured."""
    monkeypatch.setattr(batches, "cache_bytes", lambda: 2_000)
    monkeypatch.setattr(timed, "ROUND_S", 0.0)
    monkeypatch.setattr(operators, "WINDOW_ROWS", 64)
    monkeypatch.setattr(ops, "known", lambda: MACHINE)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, status: int = 0) -> dict[str, Any]:
        assert cli.main(["bench", "ops", *words, *TINY, "--json"]) == status
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_each_operator_gives_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "WIDE", inf)
    result = run(*HERE)
    assert result["failed"] == result["left_out"] == 0
    assert result["stopped"] is False
    assert result["machine"] == MACHINE.fingerprint
    found = [row["operator"] for row in result["rows"]]
    assert list(dict.fromkeys(found)) == HERE
    assert {name: found.count(name) for name in COUNTS} == COUNTS
    for row in result["rows"]:
        assert row["suite"] == "ops"
        assert row["error"] is None
        assert row["threads"] == 1
        assert row["products"] == choices.used()
        assert all(row[figure] is not None for figure in FIGURES)
        assert row["ms_low"] <= row["ms"] <= row["ms_high"]
        of_it = OPERATORS[row["operator"]].fields
        for field in ("batch", "tables", "rows", "dim", "pooling", "ids", "optim", "widths"):
            assert (row[field] is not None) == (field in of_it), (row["operator"], field)
    assert result["verdict"].startswith("Bound at batch 8: ")


def test_lists_may_stand_in_one_word_or_several(run: Run) -> None:
    rows = run("loss,mlp", "dense_update")["rows"]
    assert [row["operator"] for row in rows] == ["loss", "loss", "mlp", "mlp", "dense_update"]
    assert rows[2]["widths"] == "6-4-2"


def test_rows_are_appended_to_a_file(run: Run, workdir: Path) -> None:
    first = run("loss", "--out", "rows.jsonl")["rows"]
    second = run("lookup", "--storage", "bf16,split", "--out", "rows.jsonl")["rows"]
    assert load(Path("rows.jsonl")) == [*first, *second]
    assert [row["storage"] for row in second] == 4 * ["bf16", "split"]
    assert all(row["commit"] and row["machine"] and row["cpu"] for row in first)
    assert [path.name for path in workdir.iterdir()] == ["rows.jsonl"]


def test_tables_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "WIDE", inf)
    assert cli.main(["bench", "ops", "lookup", "loss", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "lookup: rows of the tables, forwards (tables 3, dim 4, pooling 1" in " ".join(
        shown.split()
    )
    assert "1,000" in shown
    assert "bound by" in shown
    assert "Lookup takes" in shown


def test_the_page_has_the_rows_and_the_machine(run: Run, workdir: Path) -> None:
    assert run("loss", "--html", "ops.html")["report"] == "ops.html"
    page = Path("ops.html").read_text()
    assert "Operators alone" in page
    assert MACHINE.facts.cpu in page


def test_what_fails_is_a_row(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(setting: Any, stock: Any) -> Any:
        raise RuntimeError(f"no {setting.batch}")

    monkeypatch.setitem(OPERATORS, "loss", replace(OPERATORS["loss"], build=build))
    result = run("loss", "dense_update")
    assert (result["measured"], result["failed"]) == (1, 2)
    assert [row["error"] for row in result["rows"]] == [
        "RuntimeError: no 4", "RuntimeError: no 8", None,
    ]  # fmt: skip
    assert result["rows"][0]["ms"] is None
    assert result["rows"][0]["flops"] > 0
    assert cli.main(["bench", "ops", "loss", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "RuntimeError: no 8" in shown
    assert "2 failed." in shown


def test_what_was_measured_before_ctrl_c_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = sweep.measure

    def measure(candidates: Any, *more: Any) -> list[Outcome]:
        if candidates[0].operator.name == "mlp":
            raise KeyboardInterrupt
        return real(candidates, *more)

    monkeypatch.setattr(sweep, "measure", measure)
    result = run("loss", "mlp", "dense_update", "--out", "rows.jsonl", status=130)
    assert result["stopped"] is True
    assert result["left_out"] == 3
    assert [row["operator"] for row in load(Path("rows.jsonl"))] == ["loss", "loss"]
    assert cli.main(["bench", "ops", "mlp", *TINY]) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('unknown operator "lokup"; choose one of: lookup, update, interaction', ["lokup"]),
        ('batch is "0": "0" is no whole number of at least 1', ["--batch", "0"]),
        ('batch is "8,many": "many" is no whole number', ["--batch", "8,many"]),
        ('rows is "1.5": "1.5" is no whole number of at least 1; give values', ["--rows", "1.5"]),
        ('threads is "-1": "-1" is no whole number of at least 0', ["--threads=-1"]),
        ("widths are 512, expected inputs and outputs", ["--widths", "512"]),
        ('widths is "512-x": "x" is no whole', ["--widths", "512-x"]),
        ('unknown optimizer "lion"; choose one of: sgd', ["--optim", "lion"]),
        ('unknown ids "normal"; choose one of: uniform, zipf', ["--ids", "normal"]),
        ('unknown precision "int1"; choose one of: auto', ["--precision", "int1"]),
        ('unknown storage "int1"; choose one of: fp32', ["--storage", "int1"]),
        ("rounds is 0, expected at least 1", ["--rounds", "0"]),
        ("tables of lookup (8 x 1,000,000,000,000 rows x 16 numbers", ["--rows", "1000G"]),
    ],
)
def test_settings_without_meaning_are_quoted(
    message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "ops", *words]) == 1
    assert message in capsys.readouterr().err


ROW: dict[str, Any] = {
    "operator": "lookup", "batch": 8, "tables": 2, "rows": 10, "dim": 4, "pooling": 1,
    "ids": "uniform", "precision": None, "storage": "fp32", "optim": None, "widths": None,
    "threads": 1, "ms": 1.0, "ms_low": 0.9, "ms_high": 1.1, "warm_ms": 1.0,
    "bound": "compute", "roofline_share": 0.5, "error": None,
}  # fmt: skip


def test_sentences_say_what_the_rows_say() -> None:
    rows = [
        {**ROW, "batch": 4, "bound": "calls"},
        ROW,
        {**ROW, "rows": 1000, "ms": 3.0, "warm_ms": 1.5, "bound": "memory latency"},
        {**ROW, "rows": 1000, "dim": 8, "ms_high": 2.0, "warm_ms": 0.01, "roofline_share": 0.01},
        {**ROW, "operator": "loss", "rows": None, "roofline_share": 0.1, "bound": "calls"},
        {**ROW, "operator": "mlp", "rows": None, "error": "gone", "ms": None, "bound": None},
    ]
    assert sentences(rows) == [
        "1 of 5 figures vary too much to say anything of them.",
        "Bound at batch 8: lookup by memory latency; loss by calls.",
        "Nearest to its limit there is lookup, at 50%; furthest loss, at 10%.",
        "Lookup takes 3.0 times as long with 1,000 rows a table as with 10.",
        "One input again and again would have made lookup at batch 8 look 2.0 times as fast.",
    ]
    assert sentences([]) == []
    assert sentences([{**ROW, "error": "gone"}]) == []


def test_a_limit_that_was_measured_too_low_is_said() -> None:
    said = sentences([{**ROW, "roofline_share": 1.4}])
    assert said[-1] == (
        "Lookup at batch 8 is 1.4 times as fast as its limit, which was measured too low: with a "
        "slower kernel, or in slower times; dlrm bench machine measures it again."
    )


def test_what_is_shown_of_nothing_but_failures() -> None:
    rows = [{**ROW, "error": "MemoryError"}]
    result = OpsResult(
        rows=rows, varied=("batch",), left_out=0, stopped=False, warning=None, machine="x"
    )
    assert result.status == 0
    assert result.to_dict()["failed"] == 1


@pytest.mark.parametrize("varied", [("batch", "rows", "dim"), ops.SETTINGS])
def test_a_narrow_screen_folds_settings_and_keeps_figures_whole(varied: tuple[str, ...]) -> None:
    row = ROW | {"rows": 1_000_000, "ms": 123.4, "ms_low": 123.4, "ms_high": 123.5}
    row |= {"warm_ms": 0.123, "gb_per_s": 98.7, "bound": "memory bandwidth", "flops": 0}
    result = OpsResult(
        rows=[row], varied=varied, left_out=0, stopped=False, warning=None, machine="x"
    )
    out = StringIO()
    Console(width=80, file=out).print(result)
    shown = out.getvalue()
    assert "…" not in shown
    for figure in ("123.4", "0.123", "98.7"):
        assert figure in shown
