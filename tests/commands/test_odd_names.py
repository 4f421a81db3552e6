"""Files, datasets and runs whose names look like patterns or markup are read themselves."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dlrm.cli import main
from dlrm.data.resolve import raw_files
from dlrm.data.store import Dataset

ODD = ["m[12]", "a*", "q?", "[red]r[/red]", ":boom:"]
DECOYS = ["m1", "m2", "a1", "qx", "r"]
TRAIN = [
    *("--label", "y", "--max-steps", "1", "--no-baseline"),
    *("--model.bottom", "4", "--model.top", "4", "--model.dim", "2"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder with two tables, a run, and another with other values of its category."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    for name in ("mine", "other"):
        frame = pl.DataFrame({"c": rng.choice(list("abc"), 60), "y": rng.integers(0, 2, 60)})
        frame.write_csv(folder / f"{name}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "mine.csv", *TRAIN, "--run", "mine"]) == 0
        shutil.copytree("mine", "other")
        vocabulary = Path("other/vocabulary/0000.parquet")
        pl.read_parquet(vocabulary).reverse().write_parquet(vocabulary)
        assert main(["predict", "mine", "mine.csv", "--out", "right.csv"]) == 0
    return folder


@pytest.mark.parametrize("name", ODD)
def test_scores(trained, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for decoy in DECOYS:
        shutil.copytree(trained / "other", decoy)
        shutil.copy(trained / "other.csv", f"{decoy}.csv")
    folder = Path(name)
    shutil.copytree(trained / "mine", folder)
    shutil.copy(trained / "mine.csv", file := Path(f"{name}.csv"))
    shutil.copy(trained / "mine.csv", folder / "1.csv")
    for raw in (str(file), f"{name}/1.csv", f"{name}/*.csv"):
        assert main(["predict", name, raw, "--out", "s.csv"]) == 0
        assert Path("s.csv").read_text() == (trained / "right.csv").read_text()
    capsys.readouterr()
    assert main(["data", "prepare", "table", str(file), "--label", "y", "--out", f"{name}p"]) == 0
    assert f"{name}p: prepared" in capsys.readouterr().out
    dataset = Dataset.open(f"{name}p")
    assert dataset.split("train").labels.shape == (48, 1)


@pytest.mark.parametrize("name", ["log[1]", "log*"])
def test_logs(name, workdir, capsys):
    for log, seed in (("log1", "0"), (name, "1")):
        assert (
            main(["data", "generate", "clicks", "--rows", "50", "--seed", seed, "--out", log]) == 0
        )
        words = ["data", "prepare", "criteo", log, "--out", f"{log} prepared"]
        assert main([*words, "--split", "chronological"]) == 0
    assert f"{name} prepared: prepared" in capsys.readouterr().out
    Path("plain").write_bytes(Path(name).read_bytes())
    words = ["data", "prepare", "criteo", "plain", "--out", "expected", "--split", "chronological"]
    assert main(words) == 0
    mine, expected = (
        Dataset.open(path).split("train") for path in (f"{name} prepared", "expected")
    )
    np.testing.assert_array_equal(mine.ids, expected.ids)
    np.testing.assert_array_equal(mine.dense, expected.dense)


def test_a_pattern_is_one_where_nothing_is_called_that(workdir):
    for name in ("d1", "d2", "d[12]", "d10"):
        Path(name).write_text("x")
    assert raw_files("d[12]") == [Path("d[12]")]
    Path("d[12]").unlink()
    assert raw_files("d[12]") == [Path("d1"), Path("d2")]
    assert raw_files("d*") == [Path("d1"), Path("d2"), Path("d10")]
    assert raw_files(str(workdir / "d?")) == [workdir / "d1", workdir / "d2"]
