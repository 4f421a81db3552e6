"""A dataset in numbers."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dlrm.data.describe import features, splits
from dlrm.data.vocabulary import Vocabulary

from . import ragged


def test_splits_with_several_labels(tmp_path):
    schema = replace(ragged.SCHEMA, labels=("click", "sale"))
    block = ragged.log(50, schema)
    dataset = ragged.write(tmp_path / "out", [("train", block, slice(0, 40))], schema)
    train, _, test = splits(dataset)
    assert block.labels is not None
    clicks, sales = block.labels[:40].sum(axis=0).tolist()
    known = [{"positives": count, "positive_rate": count / 40} for count in (clicks, sales)]
    assert train == {
        "name": "train",
        "rows": 40,
        **known[0],
        "labels": dict(zip(("click", "sale"), known, strict=True)),
    }
    none = {"positives": 0, "positive_rate": None}
    assert test["labels"] == {"click": none, "sale": none}


def test_splits_with_real_numbers(tmp_path):
    schema = replace(ragged.SCHEMA, labels=("stars",), task="regression")
    block = replace(ragged.log(4, schema), labels=np.array([[1], [5], [2], [2]], np.float32))
    dataset = ragged.write(tmp_path / "out", [("train", block, slice(0, 4))], schema)
    train, validation, _ = splits(dataset)
    assert train == {"name": "train", "rows": 4, "mean": 2.5, "min": 1.0, "max": 5.0}
    assert validation["mean"] is validation["min"] is validation["max"] is None


class Fitted(ragged.Named):
    """Features with values as a log has them."""

    def vocabulary(self, name: str) -> Vocabulary:
        """Return two values, one of which is missing."""
        values = pl.Series([None, 255], dtype=pl.UInt32)
        return Vocabulary(name, pl.DataFrame({"value": values, "count": [30, 10]}))


@pytest.mark.parametrize("counted", [None, 20])
def test_features_and_their_first_values(tmp_path, counted):
    dataset = ragged.write(tmp_path / "out", [("train", ragged.log(40), slice(0, 40))])
    if counted:
        dataset.manifest["counted_rows"] = counted
    described = features(dataset, Fitted(dataset.schema), 2)  # pyright: ignore[reportArgumentType]
    assert [(feature["name"], feature["kind"]) for feature in described] == [
        ("price", "dense"),
        ("age", "dense"),
        ("user", "one_hot"),
        ("tags", "bag"),
        ("item", "one_hot"),
        ("history", "sequence"),
    ]
    assert (described[0]["values"], described[0]["head"]) == (None, [])
    rows = counted or 40
    assert described[2]["values"] == 29
    assert described[2]["head"] == [
        {"id": 0, "value": None, "count": 30, "share": 30 / rows},
        {"id": 1, "value": "000000ff", "count": 10, "share": 10 / rows},
    ]
    assert not features(dataset, Fitted(dataset.schema), 0)[2]["head"]  # pyright: ignore[reportArgumentType]
