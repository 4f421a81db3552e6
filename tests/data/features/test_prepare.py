"""What is fitted comes from the training rows alone, and datasets are whole or not there."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.column import Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.features.show import grid
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles, in_folder
from dlrm.data.store import verify
from dlrm.errors import InputError

from .tables import arrays, assert_equal, csv, prepare, table, with_schema

FEATURES = FeaturesConfig(
    buckets=4, log_counts=True, target_means=True, crosses=("city*few", "few*price"), min_count=2
)
CUT = {"split": "chronological", "fractions": (200, 50, 50)}


def strange(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return a frame whose rows after the first 200 are anything else."""
    rng = np.random.default_rng(seed)
    rest = frame[200:].with_columns(
        pl.Series("price", rng.normal(size=100) * 1e6),
        pl.Series("amount", -rng.random(100)),
        pl.Series("city", [f"new {k}" for k in range(100)]),
        pl.Series("tags", [["purple"]] * 100),
        pl.Series("few", [None] * 100, dtype=pl.Int64),
        pl.Series("label", rng.integers(0, 2, 100)),
    )
    return pl.concat([frame[:200], rest])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("numbers", ["standard", "log", "quantile"])
def test_other_rows_change_nothing_that_is_fitted(tmp_path, seed, numbers):
    frame = table(seed=seed)
    asked = replace(FEATURES, numbers=numbers)
    schema = Features.load(prepare(frame, tmp_path / "first", features=asked, **CUT).path).columns  # type: ignore[union-attr]
    made = [
        with_schema(each, tmp_path / name / "out", schema, **CUT)
        for name, each in (("one", frame), ("two", strange(frame, seed)))
    ]
    mine, theirs = map(arrays, made)
    for name, array in mine.items():
        if name.startswith("train"):
            np.testing.assert_array_equal(array, theirs[name], name)
    files = [
        {path.relative_to(each.path): path.read_bytes() for path in each.path.glob("vocabulary/*")}
        for each in made
    ]
    assert files[0] == files[1]
    encoders = [json.loads((each.path / "features.json").read_text()) for each in made]
    assert encoders[0] == encoders[1]


def test_training_rows_differ_from_new_ones_by_their_own_part_only(tmp_path):
    frame = table()
    made = prepare(frame, tmp_path / "out", features=FEATURES, **CUT)
    features = Features.load(made.path)
    again = features.encode(frame[:200])
    train = made.split("train")
    names = [feature.name for feature in made.schema.dense]
    own = [k for k, name in enumerate(names) if name.endswith(("log count", "target mean"))]
    rest = [k for k in range(len(names)) if k not in own]
    np.testing.assert_array_equal(train.dense[:, rest], again.dense[:, rest])
    np.testing.assert_array_equal(train.ids, again.ids)
    assert own
    assert all((train.dense[:, k] != again.dense[:, k]).any() for k in own)
    held = features.encode(frame[250:])
    np.testing.assert_array_equal(made.split("test").dense, held.dense)
    for k in own:
        assert abs(train.dense[:, k].mean()) < 1e-4


def test_splits(tmp_path):
    frame = table(rows=200)
    sizes = (120, 50, 30)
    for split in ("chronological", "random"):
        made = prepare(frame, tmp_path / split, split=split, fractions=sizes)
        assert tuple(len(made.split(name)) for name in ("train", "validation", "test")) == sizes
        clicks = sum(int(made.split(name).labels.sum()) for name in made.splits)
        assert clicks == frame["label"].sum()
    labels = frame["label"].to_numpy()
    cut = prepare(frame, tmp_path / "chronological", split="chronological", fractions=sizes)
    np.testing.assert_array_equal(cut.split("train").labels[:, 0], labels[:120])
    np.testing.assert_array_equal(cut.split("test").labels[:, 0], labels[170:])
    one, two = (
        prepare(frame, tmp_path / f"seed {seed}", split="random", seed=seed) for seed in (0, 1)
    )
    assert (arrays(one)["train labels"] != arrays(two)["train labels"]).any()


def test_days_are_files(tmp_path):
    frame = table(rows=90)
    files = [csv(frame[k : k + 30], tmp_path / f"day{k}.csv") for k in (0, 30, 60)]
    made = prepare(TableFiles(files), tmp_path / "out", split="days")
    assert [len(made.split(name)) for name in ("train", "validation", "test")] == [60, 15, 15]


def test_folders(tmp_path):
    frame = table(rows=100)
    csv(frame[:60], tmp_path / "train_1.csv")
    csv(frame[60:90], tmp_path / "train-2.csv")
    csv(frame[90:], tmp_path / "Test.csv")
    (tmp_path / "notes.txt").write_text("hello")
    found = in_folder(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "train": ["train-2.csv", "train_1.csv"],
        "test": ["Test.csv"],
    }
    made = prepare(TableFiles(found), tmp_path / "out")
    sizes = {name: len(made.split(name)) for name in made.splits}
    assert sizes == {"train": 80, "validation": 10, "test": 10}
    (tmp_path / "other").mkdir()
    with pytest.raises(
        InputError, match="neither a prepared dataset nor one with a file named tra"
    ):
        in_folder(tmp_path / "other")


NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=25)
@given(st.lists(NAMES, min_size=5, max_size=5, unique=True))
def test_columns_may_have_any_name(tmp_path_factory, names):
    first, second, third, fourth, label = names
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            first: rng.normal(size=40),
            second: ["x", "y"] * 20,
            third: [["u", "v"], ["w"]] * 20,
            fourth: ["p", "q", "r", "s"] * 10,
            label: [0, 1] * 20,
        }
    )
    made = Columns(
        labels=(label,),
        columns=(
            Column(name=first, kind="number", buckets=2, missing_flag=True),
            Column(name=second, kind="category", values=Values(target_mean=True)),
            Column(name=third, kind="list"),
            Column(name=fourth, kind="category", values=Values(log_count=True)),
        ),
    )
    cross = FeaturesConfig(crosses=("pairs",), target_means=True)
    folder = tmp_path_factory.mktemp("names")
    dataset = with_schema(frame, folder / "out", cross.apply(made))
    features = Features.load(dataset.path)
    assert features.encode(frame).dense.shape == (40, 6)
    grid(features.columns)


def test_names_that_are_made_may_be_there_already(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "age": [None, *rng.normal(size=59)],
            "age missing": rng.normal(size=60) + 100,
            "age bucket": ["x", "y", "z"] * 20,
            "age bucket target mean": rng.normal(size=60),
            "label": [0, 1] * 30,
        }
    )
    asked = FeaturesConfig(buckets=3, target_means=True)
    made = prepare(frame, tmp_path / "out", features=asked, **{**CUT, "fractions": (60, 0, 0)})
    names = [feature.name for feature in made.schema.dense]
    assert len(set(names)) == len(names)
    assert names == [
        "age",
        "age missing",
        "age missing (2)",
        "age bucket target mean",
        "age bucket target mean (2)",
    ]
    assert len({feature.name for feature in made.schema.features}) == len(made.schema.features)
    features = Features.load(made.path)
    dense = made.split("train").dense
    assert set(dense[:, 1]) == {0.0, 1.0}
    back = features.raw("age missing (2)", dense[:, 2])
    np.testing.assert_allclose(back, frame["age missing"], rtol=1e-5)
    # The mean beside the category, not the column of that name, leaves each training row out.
    again = features.encode(frame).dense
    np.testing.assert_array_equal(again[:, 4], dense[:, 4])
    assert (again[:, 3] != dense[:, 3]).any()


def test_what_the_manifest_says(tmp_path):
    frame = table()
    made = prepare(frame, tmp_path / "out", features=FEATURES, **CUT)
    verify(made)
    described = {each["name"]: each for each in made.manifest["features"]}
    assert described["price"]["missing"] == frame["price"].null_count()
    assert described["city"]["missing"] == frame["city"].null_count()
    assert described["city"]["rare"] == 0
    hashed = prepare(frame, tmp_path / "hashed", features=FeaturesConfig(hash_rows=9), **CUT)
    assert {each["name"]: each["rare"] for each in hashed.manifest["features"]}["city"] is None
    texts = pl.DataFrame({"x": ["1.5", "NA", "2.5", "", "?"] * 20, "label": [0, 1] * 50})
    (found,) = prepare(texts, tmp_path / "texts").manifest["features"][:1]
    assert found["missing"] == 60


def test_a_killed_prepare_leaves_nothing(tmp_path):
    path = csv(table(rows=2000), tmp_path / "t.csv")
    script = f"""
import sys
from pathlib import Path
from dlrm.data.options import PrepareConfig
from dlrm.data import prepare
from dlrm.data.sources.table_files import TableFiles
real = prepare._write_splits
def slow(*args):
    splits = real(*args)
    print("ready", flush=True)
    sys.stdin.read()
prepare._write_splits = slow
config = PrepareConfig(label=("label",))
prepare.prepare(TableFiles([Path({str(path)!r})]), Path({str(tmp_path / "out")!r}), config)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    process.kill()
    _, said = process.communicate()
    assert ready == b"ready\n", said.decode()
    assert not (tmp_path / "out").exists()
    made = prepare(TableFiles([path]), tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "t.csv"]
    assert_equal(made, prepare(TableFiles([path]), tmp_path / "again"))


def test_a_dataset_is_found_again_until_something_changes(tmp_path, monkeypatch):
    path = csv(table(), tmp_path / "t.csv")
    first = prepare(TableFiles([path]), tmp_path / "out")
    stamp = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    again = prepare(TableFiles([path]), tmp_path / "out")
    assert again.manifest == first.manifest
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == stamp
    one = FrameSource(table()).fingerprint()
    assert one == FrameSource(table()).fingerprint()
    assert one != FrameSource(table(seed=1)).fingerprint()
    assert one != FrameSource(table().reverse()).fingerprint()
