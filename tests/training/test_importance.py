"""Importance and effects of models whose columns are known to matter."""

from dataclasses import replace

import numpy as np
import pytest

from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.raw_columns import rows_of
from dlrm.data.store import Split
from dlrm.training.importance import importance, row_effects


@pytest.fixture(scope="module")
def log(clicks) -> tuple[Features, Split]:
    """Clicks whose labels are the first number's doing."""
    split = clicks.split("train")
    labels = (split.dense[:, :1] > np.median(split.dense[:, 0])).astype(np.uint8)
    return Features.load(clicks.path), replace(split, labels=labels)


def first_number(rows: Encoded) -> np.ndarray:
    return rows.dense[:, :1].copy()


def test_only_what_the_model_looks_at_matters(log):
    features, split = log
    measured = importance(first_number, split, features, rows=500)
    assert measured is not None
    columns = measured.labels["label"]
    assert (measured.rows, measured.repeats, len(columns)) == (500, 3, 39)
    first = columns[0]
    assert first["column"] == features.needed[0]
    # Exchanged, a perfect score is as good as none.
    assert first["auc_low"] < 0.5 < first["auc_high"]
    assert first["log_loss_low"] > 0
    assert {values["auc"] for values in columns[1:]} == {0.0}
    assert {values["log_loss_high"] for values in columns[1:]} == {0.0}


def test_rows_of_no_weight_do_not_count(log):
    features, split = log
    weights = np.zeros(len(split), np.float32)
    assert importance(first_number, replace(split, weights=weights), features) is None
    weights[:400] = 2.0
    heavy = importance(first_number, replace(split, weights=weights), features, rows=400)
    assert heavy is not None
    assert heavy.rows == 400


def test_numbers_are_measured_by_their_rmse(log):
    features, split = log
    numbers = replace(split, labels=split.dense[:, :1])
    regression = replace(features, columns=replace(features.columns, task="regression"))
    measured = importance(first_number, numbers, regression, rows=500)
    assert measured is not None
    first, second = measured.labels["label"][:2]
    # Exact before; the difference of two draws afterwards.
    assert first["rmse"] == pytest.approx(np.sqrt(2) * split.dense[:, 0].std(), rel=0.2)
    assert first["rmse_low"] < first["rmse"] < first["rmse_high"]
    assert second["rmse"] == 0.0


@pytest.mark.parametrize(
    ("seconds", "rows", "repeats"), [(0.0, 2400, 3), (1.0, 1200, 2), (2.0, 1200, 1), (4.0, 0, 0)]
)
def test_fewer_rows_where_time_is_short(log, seconds, rows, repeats):
    features, split = log
    limit = 2400 * 39 / 2400
    measured = importance(first_number, split, features, limit_s=limit, agree=lambda _: seconds)
    if not rows:
        assert measured is None
        return
    assert measured is not None
    assert (measured.rows, measured.repeats) == (rows, repeats)


def test_effects_are_those_of_the_value(log):
    features, split = log
    everything = rows_of(split, np.arange(300), features.schema)
    highest = int(everything.dense[:, 0].argmax())
    row = rows_of(split, np.array([highest]), features.schema)
    effects = row_effects(first_number, row, everything, features)["label"]
    first, *others = effects["columns"]
    assert first["column"] == features.needed[0]
    scores = 1 / (1 + np.exp(-everything.dense[:, 0].astype(float)))
    assert effects["score"] == pytest.approx(scores[highest])
    assert first["effect"] == pytest.approx(scores[highest] - scores.mean())
    assert 0 <= first["low"] <= first["effect"] <= first["high"]
    assert {values["effect"] for values in others} == {0.0}
