"""Comparisons from the command line."""

import json
from pathlib import Path

import pytest

from dlrm.cli import main

SMALL = ["--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--loader.batch-size", "64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a comparison `c` and an experiment `e`."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["compare", "--models", "lr, dlrm", "--data", "clicks:2000", "--run", "c"]
        assert main([*words, "--seeds", "2", "--rates", "1", *SMALL]) == 0
        words = ["experiment", "figure5", "--data", "clicks:2000", "--run", "e", "--rates", "0.1"]
        assert main([*words, *SMALL]) == 0
    return folder


def test_compare_prints_json_and_goes_on_where_it_was(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["compare", "--run", "c", "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["model"] for row in result["models"]} == {"lr", "dlrm"}
    for row in result["models"]:
        assert len(row["seeds"]) == 2
        assert row["auc"] == pytest.approx(sum(s["metrics"]["auc"] for s in row["seeds"]) / 2)
        assert row["differs"] is None
    assert result["optimum"]["auc"] > 0.6
    assert "take four" in result["conclusion"]
    stored = json.loads(Path("c/result.json").read_text())
    assert stored["models"] == result["models"]


def test_the_page_names_every_model_and_loads_nothing(folder):
    page = (folder / "c" / "compare.html").read_text()
    for word in ("lr", "dlrm", "best possible", "Mean ± standard deviation"):
        assert word in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_finished_runs_are_compared(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    paths = [str(path) for path in sorted(Path("c").glob("*/*seed*"))]
    assert len(paths) == 4
    assert main(["compare", "--runs", *paths]) == 0
    assert "dlrm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--run", "c"], "exists already"),
        (["compare", "--resume"], "needs the folder"),
        (["compare", "--run", "e", "--resume"], "not a comparison"),
        (["compare", "--models", "dlrn", "--data", "clicks:2000"], "unknown model"),
        (["compare", "--models", ",", "--data", "clicks:2000"], "at least one model"),
        (["compare", "--runs", "c/x"], "at least two"),
        (["experiment", "figure6"], "figure5"),
        (["experiment"], "figure5"),
        (["experiment", "figure5", "--run", "c", "--resume"], "not an experiment"),
    ],
)
def test_what_cannot_be_compared_is_said(folder, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    assert main(words) == 1
    assert message in capsys.readouterr().err


def test_figure5_draws_both_optimizers(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["experiment", "figure5", "--run", "e", "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for optimizer in ("sgd", "adagrad"):
        assert {row["model"] for row in result[optimizer]["models"]} == {"dlrm", "dcn"}
        assert f"With {'SGD' if optimizer == 'sgd' else 'Adagrad'}" in result["conclusion"]
    page = Path("e/figure5.html").read_text()
    for label in ("DLRM, train", "DLRM, validation", "DCN, train", "DCN, validation"):
        assert page.count(label) == 2
