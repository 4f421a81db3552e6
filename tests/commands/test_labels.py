"""Several labels, numbers and weights, from the command line and from Python."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.metrics import measure, measure_regression
from dlrm.recipes import find
from dlrm.run import Run
from recipes.films import SCHEMA, films

SMALL = [
    *("--model.bottom", "8", "--model.top", "8", "--model.dim", "4"),
    *("--epochs", "2", "--loader.batch-size", "64"),
]
TWO = ["--label", "finished", "--label", "liked"]
NUMBERS = ["--label", "stars", "--task", "regression"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a table, and the runs `two` and `numbers`."""
    folder = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        films().drop("stars").write_csv("two.csv")
        films().drop("finished", "liked").write_csv("numbers.csv")
        weight = ["--weight", "counts"]
        assert main(["train", "two.csv", *TWO, *weight, "--run", "two", *SMALL]) == 0
        assert main(["train", "numbers.csv", *NUMBERS, *weight, "--run", "numbers", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "100")


def last(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_run_has_an_output_for_each_label():
    run = Run.open(Path("two"))
    assert run.schema.labels == ("finished", "liked")
    evaluation = run.evaluation("test")
    assert evaluation is not None
    assert list(evaluation["labels"]) == ["finished", "liked"]
    assert evaluation["metrics"] == evaluation["labels"]["finished"]["metrics"]
    aucs = [label["metrics"]["auc"] for label in evaluation["labels"].values()]
    assert aucs[0] != aucs[1]
    best = [row for row in run.metrics() if row["event"] == "best"][-1]
    seen = [row for row in run.metrics() if row["event"] == "eval" and row["step"] == best["step"]]
    labels = next(row for row in seen if row["split"] == "validation")["labels"]
    means = np.mean([label[best["metric"]] for label in labels.values()])
    assert best["value"] == pytest.approx(means)


def test_the_table_has_a_block_for_each_label(capsys):
    assert main(["train", "--run", "two", "--resume"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("finished") < shown.index("liked")
    assert shown.count("test: model") == shown.count("baseline lr") / 2 == 2
    assert main(["train", "--run", "two", "--resume", "--json"]) == 0
    row = last(capsys)
    assert row["labels"]["finished"]["auc"] == row["auc"]
    assert row["labels"]["liked"]["baseline"]["auc"] != row["baseline"]["auc"]


def test_a_regression_shows_errors(capsys):
    assert main(["train", "--run", "numbers", "--resume"]) == 0
    shown = capsys.readouterr().out
    for name in ("RMSE", "MAE", "R²"):
        assert name in shown
    assert "AUC" not in shown
    evaluation = Run.open(Path("numbers")).evaluation("test")
    assert evaluation is not None
    metrics = evaluation["metrics"]
    assert metrics["rmse_low"] < metrics["rmse"] < metrics["rmse_high"]
    assert "auc" not in metrics
    assert metrics["r2"] < 1


@pytest.mark.parametrize(("run", "columns"), [("two", 2), ("numbers", 1)])
def test_predict_repeats_what_was_measured(run, columns, capsys):
    raw = pl.read_csv(f"{run}.csv")
    raw.write_parquet("raw.parquet")
    assert main(["predict", run, "raw.parquet", "--out", "scores.parquet", "--json"]) == 0
    row = last(capsys)
    scores = pl.read_parquet("scores.parquet")
    opened = Run.open(Path(run))
    labels = opened.schema.labels
    expected = [f"score_{label}" for label in labels] if columns > 1 else ["score"]
    assert scores.columns == expected
    assert row["mean_score"] == pytest.approx(scores.to_series().mean())
    assert dlrm.Predictor.open(Path(run)).scores(raw) == pytest.approx(scores.to_numpy())
    # On all rows, in their order, with weights: the splits together are all of them.
    counts = raw["counts"].to_numpy()
    name = labels[-1]
    if run == "two":
        p = scores["score_liked"].to_numpy().astype(float)
        whole = measure(np.log(p / (1 - p)), (raw[name] == "yes").to_numpy(), counts)
        total, key = whole.log_loss, "log_loss"
    else:
        whole = measure_regression(scores["score"].to_numpy(), raw[name].to_numpy(), counts)
        total, key = whole.mae, "mae"
    parts, weights = [], []
    for split in ("train", "validation", "test"):
        assert main(["eval", run, "--split", split, "--no-intervals", "--json"]) == 0
        shown = last(capsys)
        parts.append(shown.get("labels", {name: shown})[name][key])
        folder = Path(opened.dataset["path"]) / split
        weights.append(np.fromfile(folder / "weights.bin", np.float32).sum())
    assert np.average(parts, weights=weights) == pytest.approx(total, rel=1e-4)


def test_eval_of_several_labels(capsys):
    assert main(["eval", "two"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "finished" in shown
    assert "liked" in shown
    assert main(["eval", "two", "--json"]) == 0
    whole = last(capsys)
    words = ["--label", "liked", "--by", "film", "--segments", "2", "--json"]
    assert main(["eval", "two", *words]) == 0
    one = last(capsys)
    assert one["label"] == "liked"
    assert one["auc"] == whole["labels"]["liked"]["auc"] != whole["auc"]
    assert len(one["segments"]) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "two", "--by", "film"], "say which with --label: finished, liked"),
        (["eval", "two", "--label", "stars"], 'unknown label "stars"; choose one of: finished'),
        (["eval", "numbers", "--metric", "auc"], 'unknown metric "auc"; choose one of: rmse'),
        (["eval", "numbers", "--user", "viewer"], "needs labels of 0 and 1"),
        (["train", "two.csv", *TWO, "--label", "finished"], "finished is given twice"),
        (["train", "two.csv", *TWO, "--weight", "liked"], "as a label and as the weight"),
        (["train", "numbers.csv", "--label", "stars"], "the label stars has"),
        (["train", "numbers.csv", *NUMBERS, "--eval.metric", "auc"], 'regression "auc"'),
        (["train", "numbers.csv", *NUMBERS, "--loss.name", "bce"], "take mse"),
        (["train", "two.csv", *TWO, "--device", "cuda"], "device is cuda"),
    ],
)
def test_mistakes_are_said(words, said, capsys):
    assert main(words) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_a_negative_weight_is_named(capsys):
    bad = films(50).drop("stars").with_columns(counts=pl.int_range(pl.len()) - 3)
    bad.write_csv("bad.csv")
    assert main(["train", "bad.csv", *TWO, "--weight", "counts", *SMALL]) == 1
    assert "bad.csv, line 2, column counts" in capsys.readouterr().err


def test_python_is_the_same():
    config = find("own")()
    config = replace(
        config,
        data="numbers.csv",
        prepare=replace(config.prepare, label=("stars",), task="regression", weight="counts"),
        model=replace(config.model, dim=4, bottom=(8,), top=(8,)),
        loader=replace(config.loader, batch_size=64),
        eval=replace(config.eval, metric="auto"),
        epochs=2,
    )
    result = dlrm.train(config, run="python")
    ours = Run.open(Path("numbers")).evaluation("test")
    assert ours is not None
    assert result.evaluations["test"]["metrics"] == ours["metrics"]


def test_a_weight_of_two_is_two_rows_in_every_metric(capsys):
    assert main(["train", "two.csv", *TWO, "--run", "plain", *SMALL, "--no-baseline"]) == 0
    plain, weighed = (Run.open(Path(run)).evaluation("test") for run in ("plain", "two"))
    assert plain is not None
    assert weighed is not None
    assert plain["metrics"] != weighed["metrics"]
    assert plain["metrics"]["samples"] == weighed["metrics"]["samples"]


def test_histories_share_the_table_of_films(capsys):
    Path("films.toml").write_text(SCHEMA)
    words = ["train", "two.csv", "--schema", "films.toml", "--run", "histories", *SMALL]
    assert main(words) == 0
    schema = Run.open(Path("histories")).schema
    assert {feature.name: feature.table for feature in schema.features} == {
        "viewer": "viewer",
        "film": "film",
        "seen": "film",
    }
    assert schema.feature("seen").kind == "sequence"
    assert main(["predict", "histories", "two.csv", "--out", "scores.csv"]) == 0
    assert len(pl.read_csv("scores.csv")) == 600


def test_the_report_shows_each_label():
    page = Path("two/report.html").read_text()
    assert "Label finished" in page
    assert "Label liked" in page
    page = Path("numbers/report.html").read_text()
    assert "Predicted against actual" in page
    assert "Residuals" in page
    assert "Not drawn" not in page


def test_models_of_numbers_compare_by_rmse(capsys):
    words = ["compare", "numbers.csv", *NUMBERS, "--models", "lr,dlrm", "--seeds", "1"]
    assert main([*words, "--rates", "1", "--run", "compared", "--epochs", "1"]) == 0
    assert "RMSE" in capsys.readouterr().out
    assert main(["compress", "numbers"]) == 0
