import json
import os
import shutil

import numpy as np
import polars as pl
import pytest

from dlrm.data.criteo import CriteoSource
from dlrm.data.encoded import dense_columns
from dlrm.data.encoder import Encoder
from dlrm.data.prepare import prepare
from dlrm.data.vocabulary import Vocabulary
from dlrm.errors import DatasetError

from .logs import log, source, write


@pytest.fixture
def dataset(tmp_path):
    return prepare(source(tmp_path / "raw", log(70)), tmp_path / "out").dataset


def test_unseen_values_get_the_last_row(dataset, tmp_path):
    encoder = Encoder.load(dataset.path)
    assert encoder.schema == dataset.schema
    row = ["1", *["5"] * 13, *["12345678"] * 26]
    frame = pl.concat(CriteoSource(write(tmp_path / "new", [tuple(row)])).read())
    encoded = encoder.encode(frame)
    assert encoded.ids[0].tolist() == [rows - 1 for rows in dataset.schema.num_embeddings]
    assert encoded.ids.dtype == np.int32
    np.testing.assert_array_equal(encoded.dense, np.full((1, 13), np.log(6), np.float32))
    assert encoder.encode(frame.clear()).ids.shape == (0, 26)


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_is_enough_to_encode(dataset, tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    run = tmp_path / "runs" / "first"
    Encoder.load(dataset.path).save(run)
    Encoder.load(dataset.path).save(run)  # again: nothing to do
    assert run.joinpath("vocabulary/C1.parquet").stat().st_nlink == (2 if links else 1)
    shutil.rmtree(dataset.path)
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    again = prepare(CriteoSource(tmp_path / "raw"), tmp_path / "again", split="chronological")
    encoded = Encoder.load(run).encode(frame)
    np.testing.assert_array_equal(encoded.ids[:56], again.dataset.split("train").ids)
    assert sorted(path.name for path in run.iterdir()) == ["features.json", "vocabulary"]


def test_numbers_become_log1p_of_what_is_not_negative():
    frame = pl.DataFrame({"a": [None, -5, 0, 1, 2**40], "b": [float("nan"), -0.5, 0.5, None, 3.0]})
    found = dense_columns(frame, ("a", "b")).to_numpy()
    raw = np.array([[0, 0], [0, 0], [0, 0.5], [1, 0], [2**40, 3]])
    np.testing.assert_array_equal(found, np.log1p(raw).astype(np.float32))


def test_what_cannot_be_encoded_is_said(dataset, tmp_path):
    encoder = Encoder.load(dataset.path)
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    with pytest.raises(DatasetError, match="no column C5"):
        encoder.encode(frame.drop("C5"))
    with pytest.raises(DatasetError, match="C5 holds String, but its vocabulary holds UInt32"):
        encoder.encode(frame.with_columns(pl.lit("Rome").alias("C5")))


def test_damaged_encoders_are_said(dataset, tmp_path):
    with pytest.raises(DatasetError, match="holds no encoder"):
        Encoder.load(tmp_path / "nowhere")
    path = dataset.path / "features.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "version": 9}))
    with pytest.raises(DatasetError, match="version 9, expected"):
        Encoder.load(dataset.path)
    path.write_text("{}")
    with pytest.raises(DatasetError, match="is damaged"):
        Encoder.load(dataset.path)
    path.write_text(json.dumps(values))
    frame = pl.concat(CriteoSource(tmp_path / "raw").read())
    short = Vocabulary.load(dataset.path / "vocabulary", "C1").frame.head(3)
    Vocabulary("C1", short).save(dataset.path / "vocabulary")
    with pytest.raises(DatasetError, match="the vocabulary of C1"):
        Encoder.load(dataset.path).encode(frame)
    (dataset.path / "vocabulary/C1.parquet").write_text("rubbish")
    with pytest.raises(DatasetError, match="is damaged"):
        Encoder.load(dataset.path).encode(frame)
    (dataset.path / "vocabulary/C1.parquet").unlink()
    with pytest.raises(DatasetError, match="is missing"):
        Encoder.load(dataset.path).encode(frame)
    with pytest.raises(DatasetError, match="is missing"):
        Encoder.load(dataset.path).save(tmp_path / "run")
