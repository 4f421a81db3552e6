"""Every recipe trains on a small table of its kind, and its run scores raw files."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from dlrm.cli import main
from dlrm.commands.train import main as train
from dlrm.recipes import RECIPES, find, first_word
from dlrm.run import Run

from . import films, tables

SHARES = ["--prepare.fractions", "0.8", "0.2", "0"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> dict[str, Path]:
    """Small raw data, by the recipe that takes them."""
    folder = tmp_path_factory.mktemp("raw")
    log = folder / "log.txt"
    assert main(["data", "generate", "clicks", "--rows", "700", "--out", str(log)]) == 0
    packed = folder / "log.tsv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    frappe, amazon = tables.frappe(folder / "frappe"), tables.amazon(folder / "amazon.csv.gz")
    return {
        "criteo-head": packed,
        "frappe": frappe,
        "frappe-ids": frappe,
        "amazon": amazon,
        "movielens": films.ratings(folder / "ratings.tsv"),
    }


WORDS = {
    "criteo-head": SHARES,
    "dlrm.recipes.criteo:criteo_plain": SHARES,
    "frappe": [],
    "frappe-ids": [],
    "amazon": SHARES,
    "movielens": SHARES,
}


@pytest.mark.parametrize("name", WORDS)
def test_a_recipe_for_a_table_trains_and_scores(name, raw, workdir):
    data = raw.get(name, raw["criteo-head"])
    few = ["--epochs", "1", "--run", "run"]
    members = find(name)().ensemble
    result = train([name, "--data", str(data), *WORDS[name], *few], "dlrm train")
    assert result is not None
    assert result.evaluations["validation"]["metrics"]["samples"] > 0
    assert result.model == Run.open(Path("run")).config["model"]["name"] or members > 1
    file = data / "valid.libsvm.gz" if data.is_dir() else data
    assert main(["predict", "run", str(file), "--out", "scores.parquet"]) == 0
    scores = pl.read_parquet("scores.parquet")["score"]
    assert scores.is_between(0, 6 if name == "movielens" else 1).all()
    assert scores.n_unique() > 1


def test_movielens_learns_ratings_of_columns_of_other_names(workdir):
    films.films().write_csv("films.csv")
    words = ["movielens", "--data", "films.csv", "--label", "stars", "--run", "run"]
    words += ["--model.user", "viewer", "--model.item", "film", "--model.dim", "4"]
    words += ["--epochs", "60", "--optim.lr", "0.03", "--loader.batch-size", "64"]
    result = train(words, "dlrm train")
    assert result is not None
    metrics = result.evaluations["test"]["metrics"]
    assert metrics["rmse"] < 0.9
    assert metrics["r2"] > 0.5


def test_scores_of_the_validation_file_are_those_of_the_evaluation(raw, workdir):
    train(["frappe", "--data", str(raw["frappe"]), "--epochs", "2", "--run", "run"], "dlrm train")
    file = raw["frappe"] / "valid.libsvm.gz"
    assert main(["predict", "run", str(file), "--out", "scores.csv"]) == 0
    mean = Run.open(Path("run")).evaluation("validation")
    assert mean is not None
    rate = mean["metrics"]["calibration"] * mean["metrics"]["click_rate"]
    assert pl.read_csv("scores.csv")["score"].mean() == pytest.approx(rate, rel=1e-5)


def test_amazon_holds_nothing_back_and_says_so(raw, workdir, capsys):
    words = ["train", "amazon", "--data", str(raw["amazon"]), "--epochs", "1", "--ensemble", "1"]
    assert main([*words, "--run", "run"]) == 0
    assert "nothing was measured" in capsys.readouterr().out
    renamed = Run.open(Path("run")).schema.feature_names
    assert not any("ROLE_CODE" in name for name in renamed)
    assert sum(" x " in name for name in renamed) == 28 + 56


def test_every_recipe_is_described():
    for name, recipe in RECIPES.items():
        assert recipe().data, name
        assert len((recipe.__doc__ or "").split("\n")[0]) > 10, name


def test_a_first_word_may_be_data(workdir):
    Path("mine.csv").write_text("a,b\n")
    assert first_word(["mine.csv", "--label", "b"]) == (
        "own",
        ["--data", "mine.csv", "--label", "b"],
    )
    assert first_word(["demo", "--epochs", "2"]) == ("demo", ["--epochs", "2"])
    assert first_word(["--epochs", "2"]) == (None, ["--epochs", "2"])
    assert first_word(["gone.csv"])[0] == "own"
    assert first_word(["my.module:recipe"])[0] == "my.module:recipe"
