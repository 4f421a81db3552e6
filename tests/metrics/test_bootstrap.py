import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dlrm.errors import DatasetError
from dlrm.metrics import difference, intervals, measure, user_auc

from .simulation import OFF, RIGHT, draw


def covered(world, size: int, sets: int, metrics: list[str]) -> dict[str, int]:
    rng = np.random.default_rng(1)
    truth = world.metrics()
    hits = dict.fromkeys(metrics, 0)
    for _ in range(sets):
        result = intervals(*world.draw(rng, size))
        for name in metrics:
            interval = result[name]
            assert interval is not None
            hits[name] += interval.low <= truth[name] <= interval.high
    return hits


@pytest.mark.parametrize("world", [OFF, RIGHT], ids=["off", "right"])
def test_intervals_cover_the_truth_at_their_rate(world):
    sets = 400
    hits = covered(
        world, 400, sets, ["auc", "log_loss", "normalized_entropy", "accuracy", "calibration"]
    )
    # Of 400 sets 380 are expected; three standard deviations are 13, and a little is granted to
    # the approximation, which at 400 rows is 94% rather than 95%.
    for name, count in hits.items():
        assert 363 <= count <= 395, name


def test_the_interval_of_ece_covers_scores_that_are_right_and_those_that_are_off():
    assert 180 <= covered(RIGHT, 400, 200, ["ece"])["ece"] <= 200
    assert 165 <= covered(OFF, 1000, 200, ["ece"])["ece"] <= 198


def test_intervals_of_many_rows_cover_too():
    # More rows than blocks.
    hits = covered(OFF, 6000, 60, ["auc", "log_loss", "calibration"])
    assert all(51 <= count <= 60 for count in hits.values()), hits


@pytest.mark.parametrize("size", [60, 6000])
def test_the_ends_are_those_of_drawing_rows_one_by_one(size):
    logits, labels = draw(3, size, 2)
    rng = np.random.default_rng(5)
    areas, losses = [], []
    for _ in range(600):
        rows = rng.integers(0, size, size)
        if labels[rows].min() < labels[rows].max():
            areas.append(roc_auc_score(labels[rows], logits[rows]))
            losses.append(measure(logits[rows], labels[rows]).require("log_loss"))
    result = intervals(logits, labels)
    for name, values in (("auc", areas), ("log_loss", losses)):
        low, high = np.quantile(values, [0.025, 0.975])
        interval = result[name]
        assert interval is not None
        width = high - low
        assert interval.low == pytest.approx(low, abs=0.12 * width)
        assert interval.high == pytest.approx(high, abs=0.12 * width)


def test_intervals_hold_their_value_and_repeat():
    for seed in range(20):
        logits, labels = draw(seed, 200, 0)
        result, values = intervals(logits, labels), measure(logits, labels)
        for name, interval in result.items():
            assert interval is not None
            if name != "ece":
                assert interval.low <= values.require(name) <= interval.high
        assert result == intervals(logits, labels)


def test_rows_of_a_user_are_drawn_together():
    # 50 users, each of whom has one row 40 times: there are 50 rows to learn from, not 2000.
    rng = np.random.default_rng(0)
    logits, labels = (np.repeat(column, 40) for column in OFF.draw(rng, 50))
    users = np.repeat(np.arange(50), 40)
    alone, together = intervals(logits, labels), intervals(logits, labels, users)
    assert alone["auc"]
    assert together["auc"]
    ratio = (together["auc"].high - together["auc"].low) / (alone["auc"].high - alone["auc"].low)
    assert ratio == pytest.approx(math.sqrt(40), rel=0.2)


def test_many_users_are_drawn_together():
    # More users than blocks, each of whom has one row four times.
    rng = np.random.default_rng(0)
    logits, labels = (np.repeat(column, 4) for column in OFF.draw(rng, 6000))
    users = np.repeat(rng.permutation(6000), 4)
    alone, together = intervals(logits, labels), intervals(logits, labels, users)
    for name in ("auc", "log_loss", "calibration"):
        few, many = alone[name], together[name]
        assert few
        assert many
        assert (many.high - many.low) / (few.high - few.low) == pytest.approx(2.0, rel=0.15)


def test_the_order_of_the_rows_means_nothing():
    # Dealt in turn, or in runs, rows that are sorted or periodic would make blocks alike or unlike.
    logits, labels = OFF.draw(np.random.default_rng(0), 4 * 4096)
    shuffled = intervals(logits, labels)
    order = np.lexsort((logits, labels))
    for rows in (order, order.reshape(-1, 4).T.ravel(), order.reshape(4096, -1).T.ravel()):
        result = intervals(logits[rows], labels[rows])
        for name in ("auc", "log_loss", "calibration"):
            one, other = shuffled[name], result[name]
            assert one
            assert other
            width = one.high - one.low
            assert other.high - other.low == pytest.approx(width, rel=0.15), name


def test_the_interval_of_user_auc_covers_at_its_rate():
    # Within every user the model is as good as over all rows, so the truth is the same.
    truth = OFF.metrics()["auc"]
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        logits, labels = OFF.draw(rng, 1000)
        users = rng.integers(-1, 100, 1000)
        result = intervals(logits, labels, users)["gauc"]
        value = user_auc(logits, labels, users).gauc
        assert result is not None
        assert value is not None
        assert result.low <= value <= result.high
        hits += result.low <= truth <= result.high
    assert 178 <= hits <= 200


def test_what_is_undefined_has_no_interval():
    result = intervals(np.array([0.2, 0.1]), np.zeros(2))
    assert result["auc"] is result["normalized_entropy"] is result["calibration"] is None
    assert result["log_loss"] is not None
    assert set(intervals(np.empty(0), np.empty(0)).values()) == {None}
    assert difference(np.zeros(2), np.ones(2), np.zeros(2))["auc"] is None
    assert intervals(np.zeros(2), np.array([0, 1]), np.arange(2))["gauc"] is None


def test_one_click_is_enough():
    result = intervals(np.array([0.2, 0.1, 0.4]), np.array([0, 0, 1]))
    assert all(
        interval and math.isfinite(interval.low + interval.high) for interval in result.values()
    )


def test_differences_cover_the_truth_at_their_rate():
    rng = np.random.default_rng(4)
    # The other model confuses neighbouring scores, and says too little.
    ours, theirs = OFF.logits, OFF.logits[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8]] - 0.3
    other = type(OFF)(theirs, OFF.truth)
    truth = {name: OFF.metrics()[name] - other.metrics()[name] for name in OFF.metrics()}
    names = ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration")
    hits = dict.fromkeys(names, 0)
    for _ in range(200):
        which = rng.integers(0, 10, 500)
        labels = (rng.random(500) < 1 / (1 + np.exp(-OFF.truth[which]))).astype(np.float32)
        result = difference(ours[which], theirs[which], labels)
        for name in names:
            paired = result[name]
            assert paired is not None
            hits[name] += paired.low <= truth[name] <= paired.high
    assert all(178 <= count <= 199 for count in hits.values()), hits


def test_a_paired_difference_is_clearer_than_two_intervals():
    logits, labels = draw(0, 20_000, 0)
    noise = np.random.default_rng(1).normal(size=20_000).astype(np.float32)
    worse = logits + 0.3 * noise
    result = difference(logits, worse, labels)["auc"]
    ours, theirs = intervals(logits, labels)["auc"], intervals(worse, labels)["auc"]
    assert result
    assert ours
    assert theirs
    assert result.clear
    assert result.value > 0
    assert ours.low < theirs.high
    assert result.high - result.low < 0.4 * (ours.high - ours.low)


def test_a_model_does_not_differ_from_itself():
    logits, labels = draw(0, 500, 0)
    for paired in difference(logits, logits, labels).values():
        assert paired
        assert (paired.value, paired.low, paired.high, paired.clear) == (0, 0, 0, False)
    with pytest.raises(DatasetError, match="500 scores against 499"):
        difference(logits, logits[:-1], labels)
    with pytest.raises(DatasetError, match="3 users, but 500 labels"):
        intervals(logits, labels, np.arange(3))
