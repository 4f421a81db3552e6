import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_regressor
from sklearn.model_selection import cross_val_score

import dlrm
from dlrm.cli import main
from dlrm.errors import DlrmError, RunError
from dlrm.run import Run
from dlrm.training.loss import LossConfig

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 512}


@pytest.fixture(scope="module")
def flats() -> tuple[pl.DataFrame, np.ndarray]:
    """Rents that the district and the size decide, and nothing else."""
    rng = np.random.default_rng(0)
    n = 800
    district = rng.choice(["north", "south", "east"], n)
    size = rng.uniform(20, 120, n)
    frame = pl.DataFrame({"district": district, "size": size, "floor": rng.integers(0, 9, n)})
    by_district = np.array([{"north": 9.0, "south": 14.0, "east": 11.0}[d] for d in district])
    return frame, 1000 * (by_district * size / 10 + rng.normal(size=n))


@pytest.fixture(scope="module")
def fitted(flats) -> dlrm.Regressor:
    return dlrm.Regressor(epochs=20, batch_size=32, lr=0.01).fit(*flats)


def test_it_learns_numbers_of_any_size(fitted, flats):
    frame, rents = flats
    assert is_regressor(fitted)
    assert fitted.score(frame, rents) > 0.9
    assert fitted.evals_["r2"] > 0.9
    assert 0 < fitted.evals_["mae"] <= fitted.evals_["rmse"] < rents.std()
    small = dlrm.Regressor(epochs=20, batch_size=32, lr=0.01).fit(frame, rents * 1e-9)
    assert small.score(frame, rents * 1e-9) == pytest.approx(fitted.score(frame, rents), abs=0.02)


def test_training_starts_at_the_mean(flats):
    frame, rents = flats
    settings: Any = {"epochs": 1, "batch_size": 800, "lr": 1e-6, "validation_fraction": 0}
    made = dlrm.Regressor("lr", **settings).fit(*flats)
    assert made.predict(frame) == pytest.approx(rents.mean(), rel=1e-4)


def test_weights_move_the_prediction():
    X = pl.DataFrame({"a": ["x"] * 400, "b": ["u", "v"] * 200})
    y = np.repeat([0.0, 10.0], 200)
    settings: Any = {"epochs": 20, "batch_size": 32, "lr": 0.03, "validation_fraction": 0}
    made = dlrm.Regressor(**settings).fit(X, y, sample_weight=np.where(y > 0, 9.0, 1.0))
    assert made.predict(X[:1])[0] == pytest.approx(9, abs=1)


@pytest.mark.parametrize("copied", ["pickle", "saved"])
def test_copies_predict_alike(copied, fitted, flats, tmp_path):
    frame, _ = flats
    if copied == "pickle":
        other = pickle.loads(pickle.dumps(fitted))
    else:
        fitted.save(tmp_path / "run")
        other = dlrm.Regressor.load(tmp_path / "run")
        assert Run.open(tmp_path / "run").schema.task == "regression"
    assert_array_equal(other.predict(frame), fitted.predict(frame))
    assert other.evals_ == fitted.evals_


def test_what_was_saved_is_a_run_that_the_commands_read(fitted, flats, workdir):
    frame, _ = flats
    fitted.save("run")
    frame.write_parquet("rows.parquet")
    assert main(["predict", "run", "rows.parquet", "--out", "scores.parquet"]) == 0
    scores = pl.read_parquet("scores.parquet")["score"]
    assert_allclose(scores, fitted.predict(frame), rtol=1e-5)
    assert main(["report", "run"]) == 0


def test_runs_of_another_kind_are_refused(flats, workdir):
    frame, rents = flats
    dlrm.Classifier(**QUICK).fit(frame, rents > rents.mean()).save("clicks")
    dlrm.Regressor(**QUICK).fit(frame, rents).save("numbers")
    with pytest.raises(RunError, match="is a classification of label: a Regressor is a regression"):
        dlrm.Regressor.load("clicks")
    with pytest.raises(RunError, match=r"dlrm\.Predictor takes any run"):
        dlrm.Classifier.load("numbers")


def test_it_works_inside_scikit_learn(flats):
    found = cross_val_score(clone(dlrm.Regressor(epochs=3, batch_size=32, lr=0.01)), *flats, cv=2)
    assert found.shape == (2,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (None, "requires y to be passed"),
        (["a", "b"], "could not convert string"),
        ([1.0, np.nan], "NaN"),
        ([1.0, np.inf], "infinity"),
        ([1.0], "inconsistent numbers of samples"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(y, said):
    with pytest.raises(ValueError, match=said):
        dlrm.Regressor(**QUICK).fit(np.array([[1.0], [2.0]]), y)


def test_a_loss_for_clicks_is_refused(flats):
    config = dlrm.TrainConfig(loss=LossConfig(name="bce"))
    with pytest.raises(ValueError, match="labels are real numbers: take mse") as raised:
        dlrm.Regressor(**QUICK, config=config).fit(*flats)
    assert isinstance(raised.value, DlrmError)
