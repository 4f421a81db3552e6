"""Gradient-boosted trees beside the models."""

import numpy as np
import polars as pl
import pytest

from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import MissingExtraError
from dlrm.metrics import MetricValues, measure
from dlrm.training.trees import default_trees, fit_trees


def test_trees_learn_and_repeat(clicks):
    pytest.importorskip("lightgbm")
    (first,), (again,), (other,) = (fit_trees(clicks, seed)["test"].compute() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert isinstance(first, MetricValues)
    assert first.auc is not None
    assert first.auc > 0.55
    # Calibrated: logits, not scores, are what is measured.
    assert first.log_loss is not None
    labels = clicks.split("test").labels[:, 0].astype("float32")
    constant = measure(labels * 0 - 1.1, labels).log_loss
    assert constant is not None
    assert first.log_loss < constant + 0.02


def test_trees_learn_each_label_and_numbers(tmp_path):
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    x, city = rng.normal(size=900), rng.integers(0, 5, 900)
    frame = pl.DataFrame(
        {
            "x": x,
            "city": [f"city {number}" for number in city],
            "minutes": 10 * x + city,
            "stars": -x,
            "importance": rng.random(900) + 0.5,
        }
    )
    config = PrepareConfig(label=("minutes", "stars"), task="regression", weight="importance")
    dataset = prepare(FrameSource(frame), tmp_path / "out", config, quiet=True).dataset
    predicted = fit_trees(dataset, 0)["test"]
    test = dataset.split("test")
    predictions, labels, weights = predicted.arrays()
    np.testing.assert_array_equal(labels, test.labels)
    assert weights is not None
    errors = np.sqrt(((predictions - labels) ** 2).mean(axis=0))
    assert (errors < 0.3 * labels.std(axis=0)).all()


def test_without_lightgbm_trees_print_the_pip_line(clicks, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"opendlrm\[trees\]"):
        fit_trees(clicks, 0)
    assert default_trees(clicks, 0) is None


def test_default_trees_are_as_many_as_lightgbm_grows(clicks, monkeypatch):
    lightgbm = pytest.importorskip("lightgbm")
    grown, train = [], lightgbm.train

    def kept(*words, **options):
        grown.append(train(*words, **options))
        return grown[-1]

    monkeypatch.setattr(lightgbm, "train", kept)
    predicted = default_trees(clicks, 0)
    assert predicted is not None
    assert predicted.keys() == {"validation", "test"}
    assert grown[0].num_trees() == 100
