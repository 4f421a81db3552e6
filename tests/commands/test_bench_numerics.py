"""`dlrm bench numerics`: what it prints, saves and draws, and what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.tiny import speeds_of_a_moment
from dlrm.bench import results
from dlrm.bench.numerics.study import Study
from dlrm.cli import main
from dlrm.commands.bench import numerics
from dlrm.errors import Interrupted

SMALL = ["--model.bottom", "8", "--model.top", "8", "--eval.every", "1000", "--seeds", "2"]
LITTLE = ["demo", "--data", "clicks:3000", "--variants", "int8,int2,aware-int2", *SMALL]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with speeds_of_a_moment():
        yield


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["bench", "numerics", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_rows_are_measured_saved_and_nothing_else_is_left(workdir, capsys):
    found = run(capsys, *LITTLE, "--out", "rows.jsonl")
    assert [row["variant"] for row in found["rows"]] == ["fp32", "int8", "int2", "aware-int2"]
    assert [row["kind"] for row in found["rows"]] == [
        "reference", "post-training", "post-training", "qat",
    ]  # fmt: skip
    assert (found["recipe"], found["data"], found["seeds"]) == ("demo", "clicks:3000", 2)
    assert found["noise_auc"] > 0
    assert found["verdict"]
    saved = results.load(Path("rows.jsonl"))
    assert saved == found["rows"]
    assert {row["suite"] for row in saved} == {"numerics"}
    assert [path.name for path in workdir.iterdir()] == ["rows.jsonl"]


def test_for_people(workdir, capsys, monkeypatch):
    monkeypatch.setattr(numerics.terminal.out, "_width", 120)
    assert main(["bench", "numerics", *LITTLE]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "demo on clicks:3000" in out
    assert "2 seeds, whose luck moves the AUC by ±." in out
    assert "log loss" in out
    assert "aware-int2" in out
    assert "neutral: the whole interval lies within ±0.0002" in out


def test_a_narrow_terminal_has_room_for_the_figures(workdir, capsys):
    assert main(["bench", "numerics", *LITTLE]) == 0
    table = capsys.readouterr().out.split("Changes are from")[0]
    assert "…" not in table


def test_failures_are_rows_and_said(workdir, capsys):
    words = [*LITTLE, "--model.tables.compression", "qr", "--model.tables.threshold", "20"]
    found = run(capsys, *words)
    errors = {row["variant"]: row["error"] for row in found["rows"]}
    assert errors["int8"] is None
    assert "says nothing to tables.compression qr" in errors["aware-int2"]
    assert main(["bench", "numerics", *words]) == 0
    assert "Failed: aware-int2: tables.qat is int2" in " ".join(capsys.readouterr().out.split())


def test_stopped_it_prints_what_is_there(workdir, capsys, monkeypatch):
    plain = Study.run

    def stops(self: Study, folder: Path, tick: object) -> None:
        plain(self, folder, lambda variant, seed: _stop(variant.name, seed))

    monkeypatch.setattr(Study, "run", stops)
    assert main(["bench", "numerics", *LITTLE, "--out", "rows.jsonl"]) == 130
    assert "Stopped: fp32 was measured with 2 seeds." in capsys.readouterr().out
    assert len(results.load(Path("rows.jsonl"))) == 4


def _stop(name: str, seed: int) -> None:
    if (name, seed) == ("int2", 1):
        raise Interrupted("stopped")


def test_stopped_before_anything_is_known_it_says_so(workdir, capsys, monkeypatch):
    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", stops)
    assert main(["bench", "numerics", *LITTLE]) == 130
    assert capsys.readouterr().err.endswith("dlrm: stopped\n")


def test_a_dataset_of_ones_own_is_measured_and_only_prepared(workdir, capsys, clicks):
    words = [str(clicks.path), "--variants", "fp16", *SMALL, "--max-steps", "3"]
    found = run(capsys, *words)
    assert found["data"] == clicks.path.name
    assert found["recipe"] == "own"
    assert not list(workdir.iterdir())


def test_the_page_is_drawn(workdir, capsys):
    pytest.importorskip("matplotlib")
    found = run(capsys, *LITTLE, "--html", "numerics.html")
    assert found["report"] == "numerics.html"
    assert "aware-int2" in Path("numerics.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variants", "int9"], 'unknown variant "int9"; choose one of: fp32, mlp-bf16'),
        (["--seeds", "1"], "seeds is 1: at least 2 are needed"),
        (["--loader.batch-size", "9000"], "loader.batch_size is 9000, and there are"),
        (["--prepare.split", "chronological", "--prepare.fractions", "1", "0", "0"], "no rows"),
    ],
)
def test_bad_input(workdir, capsys, words, said):
    assert main(["bench", "numerics", *LITTLE, *words]) == 1
    assert said in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "numerics", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "fp32 is what all are compared with" in out
    assert "--variants" in out
