"""`dlrm explain`: columns of runs of every kind, on the command line and in Python."""

import json
from pathlib import Path

import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.errors import ConfigError, DatasetError
from recipes.films import SCHEMA, films

COLUMNS = {"viewer", "film", "minutes", "seen"}
SHORT = ["--no-baseline", "--epochs", "3", "--loader.batch-size", "32", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with films, and runs of two labels and of an ensemble of regressions."""
    folder = tmp_path_factory.mktemp("explain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        frame = films().drop("counts")
        frame.drop("stars").write_csv("films.csv")
        Path("films.toml").write_text(SCHEMA)
        words = ["train", "films.csv", "--schema", "films.toml", "--model", "fm", *SHORT]
        assert main([*words, "--optim.lr", "0.3", "--run", "two"]) == 0
        frame.drop("finished", "liked", "seen").write_csv("stars.csv")
        words = ["train", "stars.csv", "--label", "stars", "--task", "regression", *SHORT]
        words += ["--model", "fm", "--ensemble", "2", "--no-importance"]
        assert main([*words, "--run", "stars"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)


def explained(words: list[str], capsys) -> dict:
    assert main(["explain", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_label_has_its_columns(capsys):
    measured = explained(["two", "--repeats", "2"], capsys)
    assert measured["repeats"] == 2
    assert measured["labels"].keys() == {"finished", "liked"}
    for values in measured["labels"].values():
        assert {column["column"] for column in values["columns"]} == COLUMNS
        drops = [column["auc"] for column in values["columns"]]
        assert drops == sorted(drops, reverse=True)
    assert main(["explain", "two", "--split", "test"]) == 0
    assert "95% interval" in capsys.readouterr().out


def test_the_report_shows_what_the_training_measured():
    run = dlrm.Run.open("two")
    assert run.importance is not None
    assert run.importance["split"] == "validation"
    assert (run.path / "report.html").read_text().count("Which columns matter") >= 2
    assert dlrm.Run.open("stars").importance is None
    assert "Which columns matter" not in (Path("stars") / "report.html").read_text()


def test_ensembles_of_regressions(capsys):
    measured = explained(["stars"], capsys)
    assert measured["model"] == "fm x 2"
    assert {"rmse", "rmse_low", "rmse_high"} <= measured["columns"][0].keys()
    row = explained(["stars", "--row", "2", "--data", "stars.csv"], capsys)["explained"][0]
    score = row["labels"]["stars"]["score"]
    predicted = dlrm.Predictor.open("stars").scores(pl.read_csv("stars.csv"))
    assert score == pytest.approx(float(predicted[1, 0]), abs=1e-5)


def test_single_rows_need_no_label(capsys):
    frame = films(40, seed=5).select(*COLUMNS)
    frame.write_csv("tomorrow.csv")
    words = ["two", "--data", "tomorrow.csv", "--row", "7", "--row", "40"]
    rows = explained(words, capsys)["explained"]
    assert [row["row"] for row in rows] == [7, 40]
    columns = rows[1]["labels"]["liked"]["columns"]
    values = {column["column"]: column["value"] for column in columns}
    assert values["film"] == frame["film"][39]
    scores = dlrm.Predictor.open("two").scores(frame)
    assert rows[0]["labels"]["liked"]["score"] == pytest.approx(float(scores[6, 1]), abs=1e-6)
    same = dlrm.explain("two", data=frame, row=[7, 40])
    assert same.to_dict()["explained"] == rows
    assert main(["explain", *words]) == 0
    assert "row 40, liked: score" in capsys.readouterr().out


def test_bad_rows_are_left_out_and_the_others_keep_their_numbers(capsys):
    lines = films(40, seed=5).drop("stars", "counts").write_csv().splitlines()
    minutes = lines[0].split(",").index("minutes")
    worse = lines[3].split(",")
    worse[minutes] = "many"
    Path("bad.csv").write_text("\n".join([*lines[:3], ",".join(worse), *lines[4:]]) + "\n")
    Path("good.csv").write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    words = ["two", "--data", "bad.csv"]
    assert main(["explain", *words, "--row", "7"]) == 1
    skipping = [*words, "--bad-rows", "skip"]
    row = explained([*skipping, "--row", "7"], capsys)["explained"][0]
    same = explained(["two", "--data", "good.csv", "--row", "6"], capsys)["explained"][0]
    assert (row["row"], row["labels"]) == (7, same["labels"])
    assert main(["explain", *skipping, "--row", "3"]) == 1
    assert "row 3 is not what it should be" in capsys.readouterr().err
    assert explained(skipping, capsys)["rows"] == 39


def test_raw_rows_with_labels_are_measured(capsys):
    films(80, seed=6).drop("stars", "counts").write_csv("day.csv")
    measured = explained(["two", "--data", "day.csv"], capsys)
    assert (measured["rows"], measured["split"]) == (80, None)
    assert {column["column"] for column in measured["columns"]} == COLUMNS
    assert (
        dlrm.explain("two", data=pl.read_csv("day.csv")).to_dict()["columns"]
        == (measured["columns"])
    )


def test_what_cannot_be_is_said():
    with pytest.raises(DatasetError, match="there is no row 99: they are numbered 1 to 40"):
        dlrm.explain("two", data=films(40), row=[99])
    with pytest.raises(ConfigError, match="rows is 0"):
        dlrm.explain("two", rows=0)
