"""`dlrm embeddings`: values and vectors, in every format and of every kind of run."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.errors import ConfigError
from dlrm.training.load import load_model
from recipes.films import SCHEMA, films

SHORT = ["--no-baseline", "--max-steps", "4", "--threads", "1", "--no-importance"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run, an ensemble and a run with hashed tables, on one table of films."""
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        films().drop("stars", "counts").write_csv("films.csv")
        Path("films.toml").write_text(SCHEMA)
        words = ["train", "films.csv", "--schema", "films.toml", "--model", "deepfm", *SHORT]
        assert main([*words, "--run", "one"]) == 0
        assert main([*words, "--run", "three", "--ensemble", "2"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)


def test_values_with_their_vectors(capsys):
    assert main(["embeddings", "one", "--table", "film", "--out", "film.parquet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    frame = pl.read_parquet("film.parquet")
    assert frame.columns == ["id", "value", "count", "vector"]
    assert (said["rows"], said["dim"]) == (frame.height, len(frame["vector"][0]))
    assert frame["id"].to_list() == list(range(frame.height))
    assert set(frame["value"][:-1]) == {f"f{k}" for k in range(20)}
    assert frame.row(-1)[1:3] == ("(rare or new)", None)
    # Films are counted where they are seen, too.
    assert frame["count"].sum() > 600
    weight = load_model(dlrm.Run.open("one")).get_parameter("embeddings.weight").detach()
    place = 30 + 1
    np.testing.assert_array_equal(frame["vector"].to_numpy(), weight[place:].numpy())


def test_every_format_holds_the_same():
    result = dlrm.embeddings("one", table="viewer")
    for name in ("v.parquet", "v.csv", "v.npy"):
        assert dlrm.embeddings("one", table="viewer", out=name).out == Path(name)
    assert np.array_equal(np.load("v.npy"), result.vectors)
    written = pl.read_csv("v.csv")
    assert written.columns[:4] == ["id", "value", "count", "v0"]
    np.testing.assert_allclose(written[:, 3:].to_numpy(), result.vectors, rtol=1e-6)
    assert pl.read_parquet("v.parquet").equals(result.frame)
    assert dlrm.embeddings("one", table="viewer", dim=2).vectors.shape == (31, 2)


def test_members_have_vectors_of_their_own():
    first, second = (dlrm.embeddings("three", table="film", member=k) for k in (0, 1))
    assert (first.member, second.member) == (0, 1)
    assert first.values.equals(second.values)
    assert not np.array_equal(first.vectors, second.vectors)
    alone = dlrm.embeddings("three/members/1", table="film")
    assert np.array_equal(alone.vectors, second.vectors)
    assert dlrm.embeddings("three", table="seen").table == "film"


@pytest.mark.parametrize(
    ("run", "given", "problem"),
    [
        ("one", {"table": "nothing"}, 'unknown table "nothing"; choose one of: viewer, film'),
        ("one", {"table": "film", "out": "film.txt"}, r"written as \.parquet, \.csv, \.npy"),
        ("one", {"table": "film", "out": "no/film.csv"}, "there is no folder no"),
        ("one", {"table": "film", "member": 0}, "the run is a single model"),
        ("three", {"table": "film", "member": 2}, "choose one of: 0 to 1"),
    ],
)
def test_what_cannot_be_is_said(run, given, problem):
    with pytest.raises(ConfigError, match=problem):
        dlrm.embeddings(run, **given)
