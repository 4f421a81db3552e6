import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dlrm
from dlrm.cli import main
from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns
from dlrm.data.sources.frame import to_polars
from dlrm.errors import DlrmError, EstimatorError, MissingExtraError, RunError
from dlrm.models import MODELS
from dlrm.run import Run

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 512}


@pytest.fixture(scope="module")
def numbers() -> tuple[np.ndarray, np.ndarray]:
    made: Any = make_classification(400, random_state=0)
    return made


@pytest.fixture(scope="module")
def visits() -> tuple[pl.DataFrame, pl.Series]:
    """Numbers, texts and lists with gaps; the city decides, and nothing else."""
    rng = np.random.default_rng(0)
    n = 600
    city = rng.choice(["Oslo", "Rome", "Łódź", "a,b"], n)
    frame = pl.DataFrame(
        {
            "price": np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(size=n)),
            "city": pl.Series(city).set(pl.Series(rng.random(n) < 0.05), None),
            "tags": pl.Series([["a"] * k for k in rng.integers(0, 3, n)], dtype=pl.List(pl.String)),
            "new": rng.random(n) < 0.5,
        }
    )
    return frame, pl.Series("bought", np.where(np.isin(city, ["Oslo", "Łódź"]), "yes", "no"))


@pytest.fixture(scope="module")
def fitted(visits) -> dlrm.Classifier:
    return dlrm.Classifier(epochs=12, batch_size=32, lr=0.01).fit(*visits)


def test_it_learns_from_a_frame(fitted, visits):
    frame, labels = visits
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.feature_names_in_.tolist() == frame.columns
    assert fitted.n_features_in_ == 4
    kinds = {column.name: column.kind for column in fitted.schema_.columns}
    assert kinds == {"price": "number", "city": "category", "tags": "list", "new": "category"}
    assert fitted.score(frame, labels) > 0.9
    assert fitted.evals_["auc"] > 0.9
    assert is_classifier(fitted)


def test_scores_agree_with_each_other(fitted, visits):
    frame, _ = visits
    logits = fitted.decision_function(frame)
    assert logits.shape == (len(frame),)
    assert_allclose(fitted.predict_proba(frame)[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert_allclose(fitted.predict_proba(frame).sum(axis=1), 1)
    assert_array_equal(fitted.predict(frame), np.where(logits > 0, "yes", "no"))
    assert_allclose(fitted.decision_function(frame[5:9]), logits[5:9], atol=1e-5)


def test_unseen_values_and_gaps_are_scored(fitted):
    rows = pl.DataFrame(
        {
            "price": [None, 1e9],
            "city": ["Atlantis", None],
            "tags": [["z"], None],
            "new": [None, True],
        }
    )
    assert np.isfinite(fitted.predict_proba(rows)).all()


def test_equal_random_states_make_equal_models(numbers):
    def scores(**settings: Any):
        return dlrm.Classifier(**QUICK, **settings).fit(*numbers).decision_function(numbers[0])

    torch.manual_seed(1)
    first = scores(random_state=3)
    torch.manual_seed(2)
    assert_array_equal(first, scores(random_state=3))
    assert not np.array_equal(first, scores(random_state=4))
    state = np.random.RandomState(0)
    assert not np.array_equal(scores(random_state=state), scores(random_state=state))


def test_the_callers_random_numbers_go_on(numbers):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dlrm.Classifier(**QUICK).fit(*numbers)
    assert torch.equal(torch.rand(3), expected)


def test_parameters_reach_the_run(numbers, tmp_path):
    config = dlrm.TrainConfig(epochs=7, model=dlrm.DCNConfig(cross_layers=3), log_every=5)
    made = dlrm.Classifier(
        epochs=2, lr=0.003, batch_size=64, patience=9, validation_fraction=0.2, config=config
    )
    made.set_params(random_state=8).fit(*numbers).save(tmp_path / "run")
    saved = Run.open(tmp_path / "run").config
    assert (saved["epochs"], saved["optim"]["lr"], saved["loader"]["batch_size"]) == (2, 0.003, 64)
    assert (saved["eval"]["patience"], saved["log_every"]) == (9, 5)
    assert [part["seed"] for part in (saved, saved["loader"], saved["prepare"])] == [8, 8, 8]
    assert saved["model"]["name"] == "dcn"
    assert saved["model"]["cross_layers"] == 3
    assert saved["prepare"]["fractions"] == [0.8, 0.2, 0.0]


def test_an_ensemble_is_one_classifier(numbers, tmp_path):
    X, y = numbers
    made = dlrm.Classifier(**QUICK, ensemble=2).fit(X, y)
    made.save(tmp_path / "run")
    alone = [
        dlrm.Classifier.load(tmp_path / f"run/members/{k}").decision_function(
            pl.DataFrame(X, schema=[f"x{i}" for i in range(X.shape[1])])
        )
        for k in range(2)
    ]
    assert_allclose(made.decision_function(X), np.mean(alone, axis=0), rtol=1e-5, atol=1e-6)


def test_without_validation_rows_all_train(numbers):
    made = dlrm.Classifier(**QUICK, validation_fraction=0).fit(*numbers)
    assert made.evals_ == {}
    assert np.isfinite(made.decision_function(numbers[0])).all()


@pytest.mark.parametrize("copied", ["pickle", "saved", "saved ensemble"])
def test_copies_score_alike(copied, visits, tmp_path):
    frame, labels = visits
    made = dlrm.Classifier(**QUICK, ensemble=2 if "ensemble" in copied else 1).fit(frame, labels)
    if copied == "pickle":
        other = pickle.loads(pickle.dumps(made))
    else:
        made.save(tmp_path / "run")
        other = dlrm.Classifier.load(tmp_path / "run")
        assert other.evals_ == made.evals_
    assert_array_equal(other.predict(frame), made.predict(frame))
    assert_array_equal(other.predict_proba(frame), made.predict_proba(frame))
    assert_array_equal(other.feature_names_in_, made.feature_names_in_)


def test_a_clone_is_not_fitted_and_has_the_parameters(fitted):
    other: Any = clone(fitted)
    assert other.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        other.predict_proba(np.zeros((1, 4)))
    with pytest.raises(NotFittedError):
        other.save("nowhere")


def test_what_was_saved_is_a_run_that_the_commands_read(fitted, visits, workdir):
    frame, _ = visits
    fitted.save("run")
    with pytest.raises(RunError, match="exists already"):
        fitted.save("run")
    frame.write_parquet("rows.parquet")
    assert main(["predict", "run", "rows.parquet", "--out", "scores.parquet"]) == 0
    scores = pl.read_parquet("scores.parquet")["score"]
    assert_allclose(scores, fitted.predict_proba(frame)[:, 1], rtol=1e-5)
    assert main(["report", "run"]) == 0
    kept = [str(path.relative_to("run")) for path in Path("run").rglob("*")]
    assert not [name for name in kept if "optimizer" in name or "baseline" in name]
    assert len([name for name in kept if name.endswith("model.safetensors")]) == 1


def test_a_run_of_the_command_line_becomes_a_classifier(visits, workdir):
    frame, labels = visits
    table = frame.select("price", "city").with_columns((labels == "yes").cast(int).alias("bought"))
    table.write_csv("visits.csv")
    words = ["train", "visits.csv", "--label", "bought", "--run", "run", "--epochs", "1"]
    assert main(words) == 0
    made = dlrm.Classifier.load("run")
    assert made.classes_.tolist() == [0, 1]
    assert main(["predict", "run", "visits.csv", "--out", "scores.parquet"]) == 0
    scores = pl.read_parquet("scores.parquet")["score"]
    assert_allclose(made.predict_proba(frame.select("price", "city"))[:, 1], scores, rtol=1e-5)


def test_only_runs_of_tables_become_classifiers(workdir):
    words = ["train", "--data", "clicks:2000", "--run", "run", "--no-baseline", "--max-steps", "2"]
    assert main(words) == 0
    with pytest.raises(RunError, match="not trained on a table"):
        dlrm.Classifier.load("run")


def test_weights_decide_what_rows_that_contradict_each_other_say():
    X = pl.DataFrame({"colour": ["red", "blue"] * 200})
    y = np.repeat([0, 1], 200)
    heavy = np.where((X["colour"] == "red").to_numpy() == y.astype(bool), 20.0, 1.0)
    settings: Any = {"epochs": 10, "batch_size": 32, "lr": 0.03}
    made = dlrm.Classifier(**settings).fit(X, y, sample_weight=heavy)
    assert made.predict(X[:2]).tolist() == [1, 0]
    other = dlrm.Classifier(**settings).fit(X, y, sample_weight=21 - heavy)
    assert other.predict(X[:2]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="weight"):
        dlrm.Classifier(**QUICK).fit(X, y, sample_weight=-heavy)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        dlrm.Classifier(**QUICK).fit(X, y, sample_weight=heavy[:9])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_takes_numbers_alone(name, numbers):
    made = dlrm.Classifier(name, **QUICK)
    if name in ("mf", "xdeepfm"):
        with pytest.raises(EstimatorError, match=r"two ids|the data have none"):
            made.fit(*numbers)
    else:
        assert np.isfinite(made.fit(*numbers).decision_function(numbers[0])).all()


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"mf"}))
def test_every_model_takes_categories_alone(name, visits):
    frame, labels = visits
    made = dlrm.Classifier(name, **QUICK).fit(frame.select("city", "new"), labels)
    assert np.isfinite(made.decision_function(frame.select("city", "new"))).all()


def test_the_schema_may_be_given(visits, tmp_path):
    frame, labels = visits
    given = Columns(
        labels=("anything",),
        columns=(Column(name="city", kind="category"), Column(name="price", kind="ignore")),
    )
    made = dlrm.Classifier(**QUICK, schema=given).fit(frame, labels)
    other = frame.with_columns(price=pl.lit("no number"), tags=pl.lit(1), new=pl.lit(0))
    assert_array_equal(made.decision_function(frame), made.decision_function(other))
    file = tmp_path / "schema.toml"
    file.write_text('label = "bought"\n[columns."city"]\nkind = "category"\n')
    same = dlrm.Classifier(**QUICK, schema=file).fit(frame, labels)
    assert_array_equal(made.decision_function(frame), same.decision_function(frame))


def test_columns_of_arrays_are_numbers():
    rng = np.random.default_rng(0)
    X = np.stack([rng.integers(0, 3, 200), np.arange(200), np.full(200, 7)], axis=1)
    made = dlrm.Classifier(**QUICK).fit(X, rng.integers(0, 2, 200))
    assert [column.kind for column in made.schema_.columns] == ["number"] * 3


def test_features_may_choose_themselves():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.choice(["x", "y"], 4000), "b": rng.choice(["u", "v"], 4000)})
    labels = (frame["a"] == "x") ^ (frame["b"] == "u")
    made = dlrm.Classifier(**QUICK, features="auto").fit(frame, labels)
    assert [cross.columns for cross in made.schema_.crosses] == [("a", "b")]


def test_it_works_inside_scikit_learn(numbers):
    pipeline = make_pipeline(StandardScaler(), dlrm.Classifier(**QUICK))
    search = GridSearchCV(pipeline, {"classifier__model": ["lr", "dlrm"]}, cv=2)
    assert search.fit(*numbers).best_params_["classifier__model"] in ("lr", "dlrm")


LINE = np.linspace(-1, 1, 50)[:, None]
HALF = (LINE[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (LINE[:0], HALF[:0], "0 sample"),
        (pl.DataFrame({"a": pl.Series([], dtype=pl.Float64)}), [], "0 sample"),
        (LINE, np.ones(50), r"one class alone, .*1.*nothing to learn"),
        (LINE, np.arange(50) % 3, "Only binary classification is supported"),
        (LINE, HALF[:30], "inconsistent numbers of samples"),
        (LINE, None, "requires y to be passed"),
        (LINE, np.linspace(0, 1, 50), "Unknown label type"),
        (np.where(LINE > 0.9, np.inf, LINE), HALF, "infinity"),
        (pl.DataFrame({"a": ["same"] * 50}), HALF, "nothing to learn"),
        (np.array([["a"]] * 50), HALF, r"numeric|convert string"),
    ],
)
def test_data_that_teach_nothing_are_refused(X, y, said):
    with pytest.raises(ValueError, match=said):
        dlrm.Classifier(**QUICK).fit(X, y)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "rnn"}, 'unknown model "rnn"; choose one of: dlrm, lr'),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"schema": "nowhere.toml"}, "nowhere.toml"),
        ({"random_state": -1}, "seed is -1"),
    ],
)
def test_parameters_without_meaning_are_refused_by_fit(settings, said):
    made = dlrm.Classifier(**{**QUICK, **settings})
    with pytest.raises(ValueError, match=said) as raised:
        made.fit(LINE, HALF)
    assert isinstance(raised.value, DlrmError)


def test_rows_of_another_kind_are_refused(fitted, visits):
    frame, _ = visits
    with pytest.raises(ValueError, match="city"):
        fitted.predict(frame.drop("city"))
    with pytest.raises(ValueError, match="expecting 1 features as input"):
        dlrm.Classifier(**QUICK).fit(LINE, HALF).predict(np.zeros((2, 3)))
    with pytest.raises(EstimatorError, match=r'column price: is "dear", expected a number'):
        fitted.predict(frame.with_columns(price=pl.lit("dear")))


def test_sparse_matrices_are_refused(numbers):
    from scipy.sparse import csr_matrix

    with pytest.raises(TypeError, match=r"[Ss]parse"):
        dlrm.Classifier().fit(csr_matrix(numbers[0]), numbers[1])


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("dlrm.estimators.estimator.HAS_SKLEARN", False)
    for estimator in (dlrm.Classifier, dlrm.Regressor):
        with pytest.raises(MissingExtraError, match=r"opendlrm\[sklearn\]"):
            estimator()


def test_it_is_quiet_unless_asked(numbers, capfd):
    dlrm.Classifier(**QUICK).fit(*numbers)
    said = capfd.readouterr()
    assert said.out + said.err == ""
    dlrm.Classifier(**QUICK, verbose=True).fit(*numbers)
    said = capfd.readouterr()
    assert "x0" in said.out + said.err


def test_nothing_is_left_on_the_disk(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    pickle.loads(pickle.dumps(dlrm.Classifier(**QUICK).fit(*numbers))).predict(numbers[0])
    assert list(tmp_path.iterdir()) == []
    assert synced == []


def test_pandas_frames_are_frames(visits):
    frame, labels = visits
    theirs = pandas.DataFrame(
        {
            "price": frame["price"].to_numpy(),
            "city": frame["city"].to_list(),
            "tags": frame["tags"].to_list(),
            "new": frame["new"].to_numpy(),
            "kind": pandas.Categorical(frame["city"].to_list()),
            "whole": pandas.array([1, None] * (len(frame) // 2), dtype="Int64"),
        }
    )
    assert to_polars(theirs).drop("kind", "whole").equals(frame.fill_nan(None))
    made = dlrm.Classifier(**QUICK).fit(theirs, pandas.Series(labels.to_list()))
    assert made.feature_names_in_.tolist() == list(theirs.columns)
    assert np.isfinite(made.predict_proba(theirs)).all()
    with pytest.raises(ValueError, match="same order"):
        made.predict(theirs[theirs.columns[::-1]])
