"""Every table type: the same rows in any format are the same dataset, and are scored the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dlrm.commands.predict import predict
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.infer import infer
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.sources import libsvm
from dlrm.data.sources.table_files import TableFiles, in_folder
from dlrm.data.store import Dataset
from dlrm.errors import InputError
from dlrm.metrics import sigmoid
from dlrm.models.dlrm import DLRMConfig
from dlrm.run import Run
from dlrm.training.config import TrainConfig
from dlrm.training.evaluate import predict_split
from dlrm.training.load import load_model
from dlrm.training.trainer import Trainer

from .tables import FORMATS, arrays, assert_equal, csv, parquet, prepare, table, with_schema

EVERYTHING = FeaturesConfig(
    buckets=5,
    log_counts=True,
    target_means=True,
    crosses=("city*few", "user id*price*member"),
    missing_flags=True,
)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return table()


@pytest.fixture(scope="module")
def expected(frame, tmp_path_factory) -> Dataset:
    return prepare(frame, tmp_path_factory.mktemp("expected") / "out", features=EVERYTHING)


def test_the_table_has_every_kind_of_column(expected):
    kinds = {each["name"]: each["kind"] for each in expected.manifest["columns"]}
    assert kinds == {
        "row": "ignore",
        "price": "number",
        "amount": "number",
        "whole": "number",
        "user id": "category",
        "few": "category",
        "city": "category",
        "tags": "list",
        "member": "category",
        "always": "ignore",
        "never": "ignore",
        "day": "number",
        "seen": "number",
        "city x few": "cross",
        "user id x price x member": "cross",
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_agree(kind, frame, expected, tmp_path):
    source: Any = FORMATS[kind](frame, tmp_path)
    (tmp_path / "raw").mkdir()
    mine = infer(source.table(tmp_path / "raw", lambda _: None), ["label"])
    (tmp_path / "as frame").mkdir()
    plain: Any = FORMATS["frame"](frame, tmp_path)
    theirs = infer(plain.table(tmp_path / "as frame", lambda _: None), ["label"])
    assert mine == theirs
    assert_equal(prepare(source, tmp_path / "out", features=EVERYTHING), expected)


def test_parquet_and_csv_may_stand_beside_each_other(frame, tmp_path):
    flat = frame.drop("tags")
    files = [parquet(flat[:100], tmp_path / "a.parquet"), csv(flat[100:], tmp_path / "b.csv")]
    assert_equal(
        prepare(TableFiles(files), tmp_path / "mine", features=EVERYTHING),
        prepare(flat, tmp_path / "theirs", features=EVERYTHING),
    )
    files[0].unlink()
    parquet(frame[:100], files[0])
    csv(frame[100:], files[1])
    with pytest.raises(InputError, match=r"b\.csv, column tags: is String here, but List"):
        prepare(TableFiles(files), tmp_path / "lists")


def test_folders_are_split_by_file(frame, tmp_path):
    cuts = {"train": frame[:200], "valid": frame[200:250], "test": frame[250:]}
    made = []
    for write, suffix in ((csv, "csv.gz"), (parquet, "parquet")):
        folder = tmp_path / suffix
        folder.mkdir()
        for name, piece in cuts.items():
            write(piece, folder / f"{name}.{suffix}")
        made.append(prepare(TableFiles(in_folder(folder)), tmp_path / f"out {suffix}"))
    assert_equal(*made)
    chronological = prepare(frame, tmp_path / "cut", split="chronological", fractions=(200, 50, 50))
    for name in ("train", "validation", "test"):
        labels = chronological.split(name).labels[:, 0]
        np.testing.assert_array_equal(made[0].split(name).labels[:, 0], labels)


def lines(rows: list[list[str]], path: Path) -> Path:
    path.write_text("".join(" ".join(row) + "\n" for row in rows))
    return path


def one_hot(path: Path) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 8, (80, 3)) + np.array([0, 10, 30])
    labels = rng.integers(0, 2, 80)
    lines([[str(y), *(f"{i}:1" for i in row)] for y, row in zip(labels, ids, strict=True)], path)
    return pl.DataFrame({"label": labels} | {f"f{k}": ids[:, k] for k in range(3)})


def fields(path: Path) -> pl.DataFrame:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 80)
    users = [int(i) if rng.random() < 0.8 else None for i in rng.integers(0, 9, 80)]
    tags = [rng.choice(20, rng.integers(0, 4), replace=False).tolist() for _ in range(80)]
    rows = [
        [str(y), *([f"0:{user}:1"] if user is not None else []), *(f"7:{i}:0.5" for i in bag)]
        for y, user, bag in zip(labels, users, tags, strict=True)
    ]
    lines(rows, path)
    texts = ["|".join(map(str, bag)) for bag in tags]
    sums = [len(bag) / 2 for bag in tags]
    return pl.DataFrame({"label": labels, "f0": users, "f7": texts, "f7 value": sums})


def bag(path: Path) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    labels = rng.choice([-1, 1], 80)
    bags = [rng.choice(50, rng.integers(0, 6), replace=False).tolist() for _ in range(80)]
    rows = [[str(y), *(f"{i}:1" for i in ids)] for y, ids in zip(labels, bags, strict=True)]
    lines(rows, path)
    return pl.DataFrame({"label": labels, "ids": ["|".join(map(str, ids)) for ids in bags]})


def numbers(path: Path) -> pl.DataFrame:
    rng = np.random.default_rng(4)
    values = np.where(rng.random((80, 4)) < 0.5, 0.0, rng.normal(size=(80, 4)).round(3))
    labels = rng.integers(0, 2, 80)
    rows = [
        [str(y), *(f"{i}:{x}" for i, x in enumerate(row) if x)]
        for y, row in zip(labels, values.tolist(), strict=True)
    ]
    lines(rows, path)
    return pl.DataFrame({"label": labels} | {str(k): values[:, k] for k in range(4)})


@pytest.mark.parametrize("write", [one_hot, fields, bag, numbers])
def test_libsvm_agrees_with_csv(write, tmp_path):
    path = tmp_path / "t.libsvm"
    frame = write(path)
    schema = libsvm.find_layout([path]).schema()
    mine = prepare(TableFiles([path]), tmp_path / "mine", label=())
    flat = TableFiles([csv(frame, tmp_path / "t.csv")])
    assert_equal(mine, with_schema(flat, tmp_path / "theirs", schema))
    assert mine.source == "libsvm"


@pytest.fixture(scope="module")
def trained(frame, tmp_path_factory) -> Path:
    """A run of three steps on the table, from Parquet."""
    folder = tmp_path_factory.mktemp("trained")
    source = TableFiles([parquet(frame, folder / "t.parquet")])
    dataset = prepare(source, folder / "dataset", split="chronological", features=EVERYTHING)
    config = TrainConfig(
        data=str(folder / "dataset"),
        prepare=PrepareConfig(label=("label",)),
        model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
        loader=LoaderConfig(batch_size=32),
        max_steps=3,
        precision="fp32",
    )
    Trainer.complete(folder / "run", "own", config, dataset, title="table")
    return folder


def held_out(trained: Path) -> np.ndarray:
    model = load_model(Run.open(trained / "run"))
    split = Dataset.open(trained / "dataset").split("test")
    logits, *_ = predict_split(model, split, 64).arrays()
    return sigmoid(logits[:, 0]).astype(np.float32)


def scores(trained: Path, *files: Path) -> np.ndarray:
    out = files[0].with_name("scores.parquet")
    predict(trained / "run", list(files), out=out)
    return pl.read_parquet(out)["score"].to_numpy()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet"])
def test_scores_are_those_of_the_prepared_rows(trained, frame, suffix, tmp_path):
    test = frame[270:]
    for number, rows in enumerate(
        (test, test.drop("label"), test.select(reversed(test.columns)), test.drop("never", "row"))
    ):
        path = tmp_path / f"{number}.{suffix}"
        separator = "\t" if suffix == "tsv" else ","
        parquet(rows, path) if suffix == "parquet" else csv(rows, path, separator)
        np.testing.assert_array_equal(scores(trained, path), held_out(trained))


def test_several_files_are_scored_in_order(trained, frame, tmp_path):
    files = [csv(frame[270:280], tmp_path / "a.csv"), csv(frame[280:], tmp_path / "b.csv")]
    np.testing.assert_array_equal(scores(trained, *files), held_out(trained))


def test_further_columns_are_ignored_and_said_once(trained, frame, tmp_path, capfd):
    more = frame[270:].with_columns(extra=pl.lit("x"), other=pl.lit(1.5))
    np.testing.assert_array_equal(scores(trained, csv(more, tmp_path / "t.csv")), held_out(trained))
    said = capfd.readouterr().err
    assert said.count("Ignored, because the model does not know them: extra, other") == 1


def test_an_absent_column_is_named(trained, frame, tmp_path):
    path = csv(frame.drop("city"), tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv, column city: has no such column"):
        scores(trained, path)


def test_unseen_values_are_scored_like_one_another(trained, frame, tmp_path):
    row = frame[270:271]
    ids = [row.with_columns(pl.lit(city).alias("city")) for city in ("Oslo", "Rome")]
    path = csv(pl.concat(ids), tmp_path / "t.csv")
    one, other = scores(trained, path)
    assert one == other


def test_no_rows_make_no_scores(trained, frame, tmp_path):
    assert len(scores(trained, csv(frame[:0], tmp_path / "t.csv"))) == 0


def test_the_run_scores_without_its_dataset(trained, frame, tmp_path):
    encoder = Run.open(trained / "run").path / "features.json"
    assert encoder.exists()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    before = held_out(trained)
    (trained / "dataset").rename(trained / "away")
    try:
        path = csv(frame[270:], moved / "t.csv")
        np.testing.assert_array_equal(scores(trained, path), before)
    finally:
        (trained / "away").rename(trained / "dataset")


def test_arrays_hold_what_was_asked_for(expected):
    names = [feature.name for feature in expected.schema.dense]
    assert {"price", "price missing", "city log count", "city target mean"} <= set(names)
    tables = {feature.name: feature for feature in expected.schema.features}
    assert {"price bucket", "city x few", "user id x price x member"} <= tables.keys()
    assert tables["tags"].kind == "bag"
    for name, array in arrays(expected).items():
        assert np.isfinite(array).all(), name


def test_another_config_is_another_dataset(frame, tmp_path):
    one = prepare(frame, tmp_path / "out")
    again = prepare(frame, tmp_path / "out")
    assert one.manifest == again.manifest
    changed = replace(PrepareConfig().features, buckets=3)
    other = prepare(frame, tmp_path / "other", features=changed)
    assert other.schema != one.schema
