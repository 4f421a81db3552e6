"""The main job on small input: raw text in; a trained, evaluated, reported model out."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.commands.train import result_of
from dlrm.errors import ConfigError, RunError
from dlrm.metrics import measure
from dlrm.ops.choice import choices
from dlrm.run import Run
from dlrm.training.config import TrainConfig
from dlrm.training.new_run import new_folder

SMALL = ["--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--loader.batch-size", "64"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with raw text and a run trained on it, `run`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["data", "generate", "clicks", "--rows", "3000", "--seed", "2", "--out", "log.txt"]
        assert main(words) == 0
        words = ["train", "criteo-kaggle", "--data", "log.txt", "--run", "run", *SMALL]
        assert main(words) == 0
    return folder


def test_a_run_directory_holds_everything(trained):
    names = {path.name for path in (trained / "run").iterdir()}
    assert names >= {
        "config.json",
        "schema.json",
        "environment.json",
        "dataset.json",
        "metrics.jsonl",
        "evaluation-test.json",
        "evaluation-validation.json",
        "vocabulary",
        "checkpoints",
        "report.html",
    }
    run = Run.open(trained / "run")
    assert run.recipe == "criteo-kaggle"
    assert run.config["model"]["dim"] == 4
    assert not any(path.suffix in (".pt", ".pth", ".pkl") for path in run.path.rglob("*"))
    evaluation = run.evaluation("test")
    assert evaluation is not None
    assert choices.used().items() >= evaluation["products"].items()
    assert result_of(run).to_dict()["products"] == evaluation["products"]
    report = (run.path / "report.html").read_text()
    assert all(f"products.{what}" in report for what in evaluation["products"])
    losses = [row["loss"] for row in run.metrics() if row["event"] == "train"]
    assert losses[-1] < 0.7


def test_eval_repeats_what_training_measured(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    for split in ("validation", "test"):
        assert main(["eval", "run", "--split", split, "--json"]) == 0
        row = json.loads(capsys.readouterr().out.splitlines()[-1])
        evaluation = Run.open(Path("run")).evaluation(split)
        assert evaluation is not None
        assert {key: row[key] for key in evaluation["metrics"]} == evaluation["metrics"]


def test_predict_scores_raw_rows_in_their_order(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    lines = Path("log.txt").read_text().splitlines(keepends=True)
    dataset = Run.open(Path("run")).dataset
    # The Kaggle protocol: after six days come test, then validation.
    start = dataset["splits"]["train"]["rows"]
    stop = start + dataset["splits"]["test"]["rows"]
    Path("test.txt").write_text("".join(lines[start:stop]))
    Path("unlabelled.txt").write_text("".join(line[2:] for line in lines[start:stop]))
    assert main(["predict", "run", "test.txt", "--out", "scores.parquet"]) == 0
    assert main(["predict", "run", "unlabelled.txt", "--out", "scores.csv"]) == 0
    scores = pl.read_parquet("scores.parquet")
    assert scores.columns == ["score"]
    assert scores.height == stop - start
    assert scores["score"].is_between(0, 1).all()
    again = pl.read_csv("scores.csv")["score"].to_numpy()
    np.testing.assert_allclose(again, scores["score"].to_numpy(), rtol=1e-6)

    labels = np.array([int(line[0]) for line in lines[start:stop]])
    p = scores["score"].to_numpy().astype(float)
    evaluation = Run.open(Path("run")).evaluation("test")
    assert evaluation is not None
    ours = measure(np.log(p / (1 - p)), labels)
    assert ours.auc == pytest.approx(evaluation["metrics"]["auc"], abs=1e-6)
    assert ours.log_loss == pytest.approx(evaluation["metrics"]["log_loss"], abs=1e-6)


def test_unseen_values_are_scored_too(trained, monkeypatch):
    monkeypatch.chdir(trained)
    Path("new.txt").write_text("\t".join(["", *["5"] * 13, *["deadbeef"] * 26])[1:] + "\n")
    result = dlrm.predict(Path("run"), [Path("new.txt")], out=Path("new.parquet"))
    assert result.rows == 1
    assert 0 < pl.read_parquet("new.parquet")["score"][0] < 1


@pytest.mark.parametrize("out", ["new.xlsx", "nowhere/new.parquet"])
def test_scores_go_only_where_they_can(trained, monkeypatch, capsys, out):
    monkeypatch.chdir(trained)
    assert main(["predict", "run", "log.txt", "--out", out]) == 1
    assert f"error: {out}: " in capsys.readouterr().err


def test_bad_rows_leave_no_scores_behind(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    lines = Path("log.txt").read_text().splitlines(keepends=True)
    Path("bad.txt").write_text("".join([*lines[:3], "2" + lines[3][1:], *lines[4:9]]))
    assert main(["predict", "run", "bad.txt", "--out", "bad.parquet"]) == 1
    assert "bad.txt, line 4, column label" in capsys.readouterr().err
    assert not Path("bad.parquet").exists()
    assert (
        main(["predict", "run", "bad.txt", "--out", "bad.parquet", "--bad-rows", "skip", "--json"])
        == 0
    )
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    # A line for each row, whose score is empty where it is bad.
    assert (row["rows"], row["bad_rows"]) == (9, 1)


def test_training_from_python_is_the_same(trained, monkeypatch):
    monkeypatch.chdir(trained)
    config = dlrm.TrainConfig(
        data="log.txt",
        model=dlrm.DLRMConfig(dim=4, bottom=(8,), top=(8,)),
        loader=replace(TrainConfig().loader, batch_size=64),
    )
    result = dlrm.train(config, run="python")
    first, second = (Run.open(Path(name)).metrics() for name in ("run", "python"))
    losses = [[row["loss"] for row in rows if row["event"] == "train"] for rows in (first, second)]
    assert losses[0] == losses[1]
    assert result.report is not None
    assert result.to_dict()["auc"] == result.evaluations["test"]["metrics"]["auc"]


def test_a_finished_run_resumes_to_itself(trained, monkeypatch):
    monkeypatch.chdir(trained)
    before = Run.open(Path("run")).metrics()
    assert main(["train", "--run", "run", "--resume"]) == 0
    assert Run.open(Path("run")).metrics() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lr", "0.5"], "was started with optim"),
        (["demo"], "was started with the recipe criteo-kaggle"),
        (["--data", "other.txt"], "another schema"),
    ],
)
def test_a_resumed_run_keeps_its_config(trained, monkeypatch, capsys, words, message):
    monkeypatch.chdir(trained)
    lines = Path("log.txt").read_text().splitlines(keepends=True)
    Path("other.txt").write_text("".join(lines[:500]))
    recipe = [word for word in words if word == "demo"]
    flags = [word for word in words if word != "demo"]
    assert main(["train", *recipe, "--run", "run", "--resume", *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_run_is_never_overwritten(trained, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(RunError, match="exists already"):
        dlrm.train(TrainConfig(data="log.txt"), run="run")


def test_resuming_from_python_needs_a_run():
    with pytest.raises(ConfigError, match="run directory"):
        dlrm.train(resume=True)


def test_a_dataset_of_another_schema_is_not_evaluated(trained, clicks, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(RunError, match="another schema"):
        dlrm.evaluate(Path("run"), data=str(clicks.path))


def test_the_baseline_and_the_optimum_stand_beside(workdir, pages, clicks, capsys):
    words = ["train", "demo", "--data", str(clicks.path), "--run", "run", "--epochs", "1", "--json"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.5 < row["optimum"]["auc"] < 1
    assert row["baseline"]["samples"] == row["samples"] == row["optimum"]["samples"] == 300
    assert row["optimum"]["log_loss"] < row["baseline"]["log_loss"]
    page = Path(row["report"]).read_text()
    assert page.startswith("<!DOCTYPE html>")
    if find_spec("lightgbm"):
        assert row["trees"]["samples"] == 300
        assert ">LightGBM</th>" in page


def test_a_run_without_held_out_rows_still_ends_well(workdir, capsys):
    assert main(["data", "generate", "clicks", "--rows", "500", "--out", "log.txt"]) == 0
    words = ["train", "criteo-kaggle", "--data", "log.txt", "--prepare.split", "chronological"]
    words += ["--prepare.fractions", "1", "0", "0", "--run", "run", *SMALL, "--json"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["split"] is None
    assert row["steps"] == 8


def test_wide_deep_without_crosses_says_what_it_does_instead(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    words = ["train", "criteo-kaggle", "--data", "log.txt", "--max-steps", "1"]
    words += ["--model", "wide_deep", "--model.deep", "8", "--model.dim", "4"]
    assert main([*words, "--run", "wide"]) == 0
    assert "first-order weights" in capsys.readouterr().err
    assert main([*words, "--run", "crossed", "--model.crosses", "C1*C2"]) == 0
    assert "first-order weights" not in capsys.readouterr().err


def test_runs_of_the_same_second_have_names_of_their_own(workdir: Path) -> None:
    taken = set()
    for _ in range(3):
        path = new_folder("demo")
        assert not path.exists()
        path.mkdir(parents=True)
        taken.add(path)
    assert len(taken) == 3
    assert new_folder("clicks:300").name.startswith("clicks-300-")
