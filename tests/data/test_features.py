import json
import os
import shutil

import numpy as np
import polars as pl
import pytest

from dlrm.data.features.column import Column
from dlrm.data.features.features import Features
from dlrm.data.features.number import Number, encode_numbers
from dlrm.data.features.rows import Rows
from dlrm.data.features.texts import as_numbers
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.criteo import CriteoSource
from dlrm.errors import DatasetError

from .logs import log, source, write


@pytest.fixture
def dataset(tmp_path):
    return prepare(source(tmp_path / "raw", log(70)), tmp_path / "out").dataset


def test_unseen_values_get_the_last_row(dataset, tmp_path):
    features = Features.load(dataset.path)
    assert features.schema == dataset.schema
    row = ["1", *["5"] * 13, *["12345678"] * 26]
    frame = pl.concat(CriteoSource(write(tmp_path / "new", [tuple(row)])).read())
    encoded = features.encode(frame)
    assert encoded.ids[0].tolist() == [rows - 1 for rows in dataset.schema.num_embeddings]
    assert encoded.ids.dtype == np.int32
    np.testing.assert_array_equal(encoded.dense, np.full((1, 13), np.log(6), np.float32))
    assert features.encode(frame.clear()).ids.shape == (0, 26)


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_is_enough_to_encode(dataset, tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    run = tmp_path / "runs" / "first"
    Features.load(dataset.path).save(run)
    Features.load(dataset.path).save(run)  # again: nothing to do
    assert run.joinpath("vocabulary/0000.parquet").stat().st_nlink == (2 if links else 1)
    shutil.rmtree(dataset.path)
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    again = prepare(
        CriteoSource(tmp_path / "raw"), tmp_path / "again", PrepareConfig(split="chronological")
    )
    encoded = Features.load(run).encode(frame)
    np.testing.assert_array_equal(encoded.ids[:56], again.dataset.split("train").ids)
    assert sorted(path.name for path in run.iterdir()) == ["features.json", "vocabulary"]


def test_numbers_become_log1p_of_what_is_not_negative():
    raw = {"a": [None, -5, 0, 1, 2**40], "b": [float("nan"), -0.5, 0.5, None, 3.0]}
    frame = pl.DataFrame({**raw, "c": ["", "-5", " 0", "1", "1099511627776"]})
    columns = [Column(name=name, kind="number", scale="log1p") for name in frame.columns]
    numbers = [Number.fit(column, as_numbers(frame[column.name])[0]) for column in columns]
    expected = np.log1p([[0, 0, 0], [0, 0, 0], [0, 0.5, 0], [1, 0, 1], [2**40, 3, 2**40]])
    for rows in (frame, pl.concat([frame] * 20)):
        parts = encode_numbers(numbers, Rows(rows))
        encoded = np.stack([part.dense[0] for part in parts], axis=1)
        np.testing.assert_array_equal(encoded[:5], expected.astype(np.float32))
        np.testing.assert_array_equal(encoded[-5:], expected.astype(np.float32))
    np.testing.assert_allclose(numbers[1].raw(expected[:, 1].astype(np.float32)), [0, 0, 0.5, 0, 3])


def test_what_cannot_be_encoded_is_said(dataset, tmp_path):
    features = Features.load(dataset.path)
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    with pytest.raises(DatasetError, match="no column C5"):
        features.encode(frame.drop("C5"))
    with pytest.raises(DatasetError, match="C5 holds String, but its vocabulary holds UInt32"):
        features.encode(frame.with_columns(pl.lit("Rome").alias("C5")))


def test_damaged_encoders_are_said(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"features.json: the file is missing"):
        Features.load(tmp_path / "nowhere")
    path = dataset.path / "features.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "version": 9}))
    with pytest.raises(DatasetError, match="version 9, expected"):
        Features.load(dataset.path)
    path.write_text("{}")
    with pytest.raises(DatasetError, match=r"features.json: it has no"):
        Features.load(dataset.path)
    path.write_text(json.dumps(values))
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    file = dataset.path / "vocabulary/0000.parquet"
    pl.read_parquet(file).head(3).write_parquet(file)
    with pytest.raises(DatasetError, match="the vocabulary of C1"):
        Features.load(dataset.path).encode(frame)
    (dataset.path / "vocabulary/0000.parquet").write_text("rubbish")
    with pytest.raises(DatasetError, match="is damaged"):
        Features.load(dataset.path).encode(frame)
    (dataset.path / "vocabulary/0000.parquet").unlink()
    with pytest.raises(DatasetError, match="is missing"):
        Features.load(dataset.path).encode(frame)
    with pytest.raises(DatasetError, match="is missing"):
        Features.load(dataset.path).save(tmp_path / "run")
