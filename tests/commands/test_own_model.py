"""A model of one's own, in one file, from the command line: two labels, histories, processes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.run import Run
from recipes.films import SCHEMA, films

HERE = Path(__file__).parent
MODEL = "history_model:HistoryConfig"
WORDS = [
    *("train", "films.csv", "--schema", "films.toml", "--model", MODEL, "--no-baseline"),
    *("--epochs", "1", "--loader.batch-size", "64", "--model.dim", "4", "--threads", "1"),
    *("--optim.name", "sgd", "--optim.embedding-l2", "0", "--log-every", "1"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a table, and a run of one process on it."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(HERE)
        films().drop("stars").write_csv("films.csv")
        Path("films.toml").write_text(SCHEMA)
        assert main([*WORDS, "--run", "one"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.syspath_prepend(HERE)


def losses(run: str) -> list[float]:
    return [row["loss"] for row in Run.open(Path(run)).metrics() if row["event"] == "train"]


def test_its_flags_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["train", "films.csv", "--model", MODEL, "--help-all"])
    shown = capsys.readouterr().out
    assert "--model.hidden" in shown
    assert "Units of the hidden layer." in shown
    assert "--model.bottom" not in shown


def test_its_settings_are_those_of_the_run():
    config = Run.open(Path("one")).config["model"]
    assert (config["name"], config["dim"], config["hidden"]) == (MODEL, 4, 16)


def test_two_processes_learn_what_one_learns(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{Path(dlrm.__file__).parents[1]}")
    assert main([*WORDS, "--run", "two", "--procs", "2"]) == 0
    assert losses("two") == pytest.approx(losses("one"), abs=1e-6)
    one, two = (Run.open(Path(run)).evaluation("test") for run in ("one", "two"))
    assert one is not None
    assert two is not None
    for label in ("finished", "liked"):
        mine, theirs = (each["labels"][label]["metrics"] for each in (one, two))
        assert theirs["log_loss"] == pytest.approx(mine["log_loss"], abs=1e-5)


def test_all_commands_take_its_run(capsys):
    assert main(["train", "--run", "one", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == MODEL
    with pytest.raises(SystemExit):
        main(["train", "--run", "one", "--resume", "--model.nothing", "3"])
    assert main(["predict", "one", "films.csv", "--out", "scores.parquet"]) == 0
    scores = pl.read_parquet("scores.parquet")
    assert scores.columns == ["score_finished", "score_liked"]
    frame = pl.read_csv("films.csv")
    assert np.allclose(dlrm.Predictor.open(Path("one")).scores(frame), scores.to_numpy())
    assert main(["eval", "one"]) == 0
    assert main(["report", "one"]) == 0
    words = ["plan", "films.csv", "--schema", "films.toml", "--model", MODEL, "--no-measure"]
    assert main([*words, "--procs", "2"]) == 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("history_model:Nothing", "has no attribute 'Nothing'"),
        ("nowhere_at_all:Config", "No module named 'nowhere_at_all'"),
        ("history_model:HistoryModel", "is no config of a model"),
        ("transformer", 'unknown model "transformer"; choose one of: dlrm, lr'),
    ],
)
def test_what_is_no_model_is_said(model, said, capsys):
    words = ["train", "films.csv", "--schema", "films.toml", "--model", model, "--run", "none"]
    assert main(words) == 1
    assert said in capsys.readouterr().err
    assert not Path("none").exists()
