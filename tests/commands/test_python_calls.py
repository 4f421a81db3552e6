"""Calls from Python do what the command line does, with paths of any kind and with frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.commands.run_config import run_config
from dlrm.errors import ConfigError
from dlrm.recipes import RECIPES
from dlrm.recipes.own import own

N = 300


@pytest.fixture
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "city": [f"c{k}" for k in rng.integers(0, 9, N)],
            "price": rng.random(N).round(3),
            "day": np.arange(N),
            "counts": rng.integers(0, 3, N),
            "bought": rng.integers(0, 2, N),
        }
    )


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the recipe for tables of one's own take one step."""
    short = replace(own(), max_steps=2, baseline=False)
    monkeypatch.setitem(RECIPES, "own", lambda: short)


@pytest.mark.parametrize("kind", ["path", "polars", "pandas"])
def test_a_table_is_trained_as_the_command_trains_it(frame, workdir, monkeypatch, kind):
    quick(monkeypatch)
    frame.write_csv("visits.csv")
    data = {"path": Path("visits.csv"), "polars": frame}
    if kind == "pandas":
        data["pandas"] = pytest.importorskip("pandas").DataFrame(frame.to_dict(as_series=False))
    result = dlrm.train(
        data[kind], label="bought", weight="counts", time="day", model="lr", run="runs/visits"
    )
    assert result.evaluations.keys() == {"validation", "test"}
    run = dlrm.Run.open("runs/visits")
    assert run.recipe == "own"
    assert run.config["prepare"]["time"] == "day"
    assert run.config["model"]["name"] == "lr"
    # A weight of 0 counts for nothing.
    samples = frame[270:].filter(pl.col("counts") > 0).height
    assert result.evaluations["test"]["metrics"]["samples"] == samples
    assert dlrm.evaluate("runs/visits").metrics["samples"] == samples
    assert dlrm.evaluate(Path("runs/visits"), split="validation").split == "validation"
    dlrm.predict("runs/visits", [Path("visits.csv")], out="scores.csv")
    scores = pl.read_csv("scores.csv")["score"].to_numpy()
    predictor = dlrm.Predictor.open("runs/visits")
    np.testing.assert_allclose(predictor.scores(frame)[:, 0], scores, atol=1e-6)
    assert dlrm.report("runs/visits").report.is_file()
    assert dlrm.describe(run.dataset["path"]).rows == N


def test_settings_of_a_recipe_can_be_given():
    name, config = run_config("movielens", data="ratings.csv", label=["stars"], model="fm")
    assert (name, config.data, config.prepare.label, config.model.name) == (
        "movielens", "ratings.csv", ("stars",), "fm"
    )  # fmt: skip
    name, config = run_config(dlrm.TrainConfig(epochs=3), label="y")
    assert (name, config.epochs, config.prepare.label) == ("custom", 3, ("y",))
    with pytest.raises(ConfigError, match="unknown recipe"):
        run_config("nothing")
