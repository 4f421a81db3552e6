"""Several labels, labels that are any numbers, and rows that weigh."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.features.labels import encode_weights
from dlrm.data.fitting import Known
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare as prepare_rows
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles
from dlrm.data.store import verify
from dlrm.errors import ConfigError, DlrmError, InputError

from .tables import csv, inferred, prepare, with_schema

WHOLE = {"split": "chronological", "fractions": (1.0, 0.0, 0.0)}


def shop(rows: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "x": rng.normal(size=rows),
            "city": rng.choice(["Rome", "Bern", "Oslo"], rows),
            "click": rng.integers(0, 2, rows),
            "bought": rng.choice(["no", "yes"], rows),
            "rating": rng.integers(1, 6, rows),
            "spent": np.exp(rng.normal(size=rows)).round(2),
            "weight": rng.choice([0.0, 0.5, 1.0, 2.0], rows),
        }
    )


FRAME = shop()


def refused(folder: Path, frame: pl.DataFrame, **settings) -> str:
    """Return why a CSV file of a frame is refused."""
    path = csv(frame, folder / "t.csv")
    with pytest.raises(DlrmError) as raised:
        prepare(TableFiles([path]), folder / "out", **settings)
    assert not (folder / "out").exists()
    return str(raised.value).replace(f"{folder}/", "")


def test_several_labels_are_columns_of_one_array(tmp_path):
    made = prepare(FRAME, tmp_path / "out", label=("click", "bought"), **WHOLE)
    verify(made)
    assert made.schema.labels == ("click", "bought")
    assert made.schema.task == "classification"
    labels = made.split("train").labels
    assert labels.dtype == np.uint8
    expected = np.stack([FRAME["click"], FRAME["bought"] == "yes"], axis=1)
    np.testing.assert_array_equal(labels, expected)
    counts = dict(zip(("click", "bought"), expected.sum(axis=0).tolist(), strict=True))
    assert made.manifest["splits"]["train"]["positives"] == counts
    names = [each["name"] for each in made.manifest["columns"]]
    assert names == ["x", "city", "rating", "spent", "weight"]
    swapped = prepare(FRAME, tmp_path / "swapped", label=("bought", "click"), **WHOLE)
    np.testing.assert_array_equal(swapped.split("train").labels, expected[:, ::-1])


def test_labels_come_back_when_rows_are_encoded(tmp_path):
    made = prepare(FRAME, tmp_path / "out", label=("click", "bought"), weight="weight", **WHOLE)
    features, train = Features.load(made.path), made.split("train")
    encoded = [label.encode(FRAME[label.name]).to_list() for label in features.targets]
    np.testing.assert_array_equal(np.transpose(encoded), train.labels)
    np.testing.assert_array_equal(encode_weights(FRAME["weight"]), train.weights)
    unlabelled = features.encode(FRAME.drop("click", "bought", "weight"))
    assert (unlabelled.labels, unlabelled.weights) == (None, None)
    np.testing.assert_array_equal(unlabelled.dense, train.dense)
    changed = FRAME.with_columns(pl.lit("perhaps").alias("bought"))
    known = Known(features=features)
    with pytest.raises(
        InputError, match='row 1, column bought: is "perhaps", expected "yes" or "no"'
    ):
        prepare_rows(FrameSource(changed), tmp_path / "changed", known=known)
    light = FRAME.with_columns(pl.lit(-1.0).alias("weight"))
    with pytest.raises(InputError, match=r"row 1, column weight: .* expected a weight"):
        prepare_rows(FrameSource(light), tmp_path / "light", known=known)


def test_labels_of_different_kinds(tmp_path):
    said = refused(tmp_path, FRAME, label=("click", "rating"))
    assert "labels of different kinds: click has two values, but rating has 5" in said
    assert "--task regression" in said
    said = refused(tmp_path, FRAME, label=("rating", "bought"), task="regression")
    assert 'labels of different kinds: the label bought holds no numbers, but "' in said
    assert refused(tmp_path, FRAME, label=("bought",), task="regression").startswith(
        "the label bought holds no numbers"
    )
    with pytest.raises(ConfigError, match="the label click is given twice"):
        PrepareConfig(label=("click", "bought", "click"))
    with pytest.raises(ConfigError, match="the schema has the label click twice"):
        Columns(labels=("click", "click"))
    with pytest.raises(ConfigError, match="the column click is given as a label and as the weight"):
        PrepareConfig(label=("click",), weight="click")


def test_a_comparison_says_of_each_label_what_a_click_is(tmp_path):
    frame = FRAME.with_columns(other=FRAME["rating"].reverse())
    made = prepare(frame, tmp_path / "out", label=("rating", "other"), positive=">= 4", **WHOLE)
    rated = FRAME["rating"].to_numpy() >= 4
    np.testing.assert_array_equal(made.split("train").labels, np.stack([rated, rated[::-1]], 1))


def test_regression_takes_any_numbers(tmp_path):
    asked = {"label": ("spent", "rating"), "task": "regression", **WHOLE}
    made = prepare(FRAME, tmp_path / "out", **asked)
    verify(made)
    assert made.schema.task == "regression"
    labels = made.split("train").labels
    assert labels.dtype == np.float32
    expected = FRAME.select("spent", "rating").to_numpy().astype(np.float32)
    np.testing.assert_array_equal(labels, expected)
    split = made.manifest["splits"]["train"]
    assert split["mean"]["rating"] == pytest.approx(FRAME["rating"].mean())
    assert (split["min"]["rating"], split["max"]["rating"]) == (1, 5)
    features = Features.load(made.path)
    back = [label.encode(FRAME[label.name]).to_list() for label in features.targets]
    np.testing.assert_array_equal(np.transpose(back).astype(np.float32), expected)
    as_text = prepare(TableFiles([csv(FRAME, tmp_path / "t.csv")]), tmp_path / "csv", **asked)
    np.testing.assert_array_equal(as_text.split("train").labels, expected)


@pytest.mark.parametrize("value", ["", "NA", "much", "inf", "nan", "1e39"])
def test_a_label_that_is_no_number_is_a_bad_row(tmp_path, value):
    spent = [*FRAME["spent"][:10].cast(pl.String), value, *FRAME["spent"][11:].cast(pl.String)]
    frame = FRAME.with_columns(pl.Series("spent", spent))
    asked = {"label": ("spent",), "task": "regression"}
    said = refused(tmp_path, frame, **asked)
    assert said.startswith("t.csv, line 12, column spent: is ")
    assert "expected a number in every row (or --bad-rows skip)" in said
    made = prepare(
        TableFiles([tmp_path / "t.csv"]), tmp_path / "out", bad_rows="skip", **asked, **WHOLE
    )
    assert made.manifest["bad_rows"]["reasons"] == {"spent": 1}
    expected = np.delete(FRAME["spent"].to_numpy().astype(np.float32), 10)
    np.testing.assert_array_equal(made.split("train").labels[:, 0], expected)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["{:,.2f}", "{:.2f}%", "€ {:.2f}", "{:.2f} kg", "{:,.2f},", "k"]))
def test_labels_and_weights_in_any_format(tmp_path_factory, form):
    folder = tmp_path_factory.mktemp("labels")
    spent = (FRAME["spent"] * 1000).round(2)

    def written(x: float) -> str:
        if form == "{:,.2f},":
            return f"{x:,.2f}".replace(",", " ").replace(".", ",")
        return f"{x / 1000:.5f}k" if form == "k" else form.format(x)

    frame = FRAME.with_columns(
        spent=pl.Series(map(written, spent)), weight=pl.Series(map(written, spent))
    )
    asked = {"task": "regression", "label": ("spent",), "weight": "weight", **WHOLE}
    made = prepare(TableFiles([csv(frame, folder / "t.csv")]), folder / "out", **asked)
    train = made.split("train")
    np.testing.assert_allclose(train.labels[:, 0], spent, rtol=1e-6)
    assert train.weights is not None
    np.testing.assert_allclose(train.weights, spent, rtol=1e-6)
    assert made.manifest["division"][0].startswith('label spent: written as "')
    (label,) = Features.load(made.path).targets
    np.testing.assert_array_equal(label.encode(frame["spent"]), train.labels[:, 0])
    click = prepare(frame, folder / "c", label=("spent",), positive=">= 1000", **WHOLE)
    np.testing.assert_array_equal(click.split("train").labels[:, 0], spent >= 1000)


def test_what_a_label_of_one_value_lacks(tmp_path):
    gaps = FRAME.with_columns(click=pl.Series(["1", ""] * 30))
    assert 'is "1" wherever there is one, but 30 of 60 rows have none' in refused(
        tmp_path, gaps, label=("click",)
    )
    same = FRAME.with_columns(click=pl.lit(1))
    assert "needs rows of both kinds" in refused(tmp_path, same, label=("click",))
    every = refused(tmp_path, FRAME, label=("rating",), positive=">= 0")
    assert 'as a click is ">= 0"' in every
    assert "its values are" in every


def test_what_a_regression_cannot_be_told(tmp_path):
    asked = {"label": ("spent",), "task": "regression"}
    assert "positive is" in refused(tmp_path, FRAME, positive=">= 4", **asked)
    same = FRAME.with_columns(pl.lit(2.5).alias("spent"))
    assert "the label spent is 2.5 in every row" in refused(tmp_path, same, **asked)
    auto = FeaturesConfig(select="auto")
    assert "features auto is for clicks" in refused(tmp_path, FRAME, features=auto, **asked)
    gone = FRAME.with_columns(pl.lit(None, pl.Float64).alias("spent"))
    assert "the label spent is missing in every row" in refused(tmp_path, gone, **asked)


def test_weights_are_kept_and_are_no_feature(tmp_path):
    made = prepare(FRAME, tmp_path / "out", label=("click",), weight="weight", **WHOLE)
    verify(made)
    weights = made.split("train").weights
    assert weights is not None
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, FRAME["weight"].to_numpy())
    names = [each["name"] for each in made.manifest["columns"]]
    assert "weight" not in names
    assert "weight" not in Features.load(made.path).needed
    without = prepare(FRAME, tmp_path / "without", label=("click",), **WHOLE)
    assert without.split("train").weights is None
    # A schema that has the column as a feature gives it up.
    inferred(FRAME, tmp_path / "x", "click")
    schema = Features.load(without.path).columns
    assert "weight" in [column.name for column in schema.columns]
    again = with_schema(FRAME, tmp_path / "y" / "out", schema, weight="weight", **WHOLE)
    assert again.schema == made.schema
    np.testing.assert_array_equal(again.split("train").weights, weights)


@pytest.mark.parametrize("value", ["", "-0.5", "heavy", "inf"])
def test_a_weight_that_is_none_is_a_bad_row(tmp_path, value):
    weights = [*FRAME["weight"][:4].cast(pl.String), value, *FRAME["weight"][5:].cast(pl.String)]
    frame = FRAME.with_columns(pl.Series("weight", weights))
    asked = {"label": ("click",), "weight": "weight"}
    said = refused(tmp_path, frame, **asked)
    shown = f'is "{value}"' if value else "is missing"
    expected = "expected a weight, which is a number that is 0 or more"
    assert said == f"t.csv, line 6, column weight: {shown}, {expected}"
    made = prepare(TableFiles([tmp_path / "t.csv"]), tmp_path / "out", bad_rows="skip", **asked)
    assert made.manifest["bad_rows"]["reasons"] == {"weight": 1}
    assert sum(len(made.split(name)) for name in made.splits) == len(frame) - 1


def test_weights_that_are_not_there_or_say_nothing(tmp_path):
    asked = {"label": ("click",)}
    said = refused(tmp_path, FRAME, weight="wieght", **asked)
    assert 'there is no weight column "wieght"; the columns are x, city' in said
    nothing = FRAME.with_columns(pl.lit(0).alias("weight"))
    assert "is 0 in every row" in refused(tmp_path, nothing, weight="weight", **asked)
    nested = FRAME.with_columns(pl.Series("weight", [[1.0]] * len(FRAME)))
    with pytest.raises(ConfigError, match="the weight weight holds List"):
        prepare(nested, tmp_path / "out", weight="weight", **asked)


def test_another_label_or_weight_is_another_dataset(tmp_path):
    prepare(FRAME, tmp_path / "out", label=("click",))
    for change in ({"label": ("click", "bought")}, {"weight": "weight"}, {"task": "regression"}):
        with pytest.raises(DlrmError, match="prepared differently"):
            prepare(FRAME, tmp_path / "out", **{"label": ("click",), **change})
    options = json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]
    assert options["label"] == ["click"]


values = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(-100, 100, width=32)), min_size=4, max_size=40
)


@settings(deadline=None, max_examples=50)
@given(values, st.integers(2, 5))
# The labels outside of each fold are equal, but for rounding.
@example([("a", label) for label in (2.0, 1.8387882709503174) * 2], 2)
def test_means_of_numbers_leave_the_own_fold_out(data, folds):
    from dlrm.data.features.category import Category
    from dlrm.data.features.column import Values

    labels = np.array([number for _, number in data], np.float32)
    frame = pl.DataFrame({"x": [letter for letter, _ in data]})
    asked = Values(target_mean=True, target_score=True, folds=folds, prior=3.0)
    fitted, training = Category.fit(("x",), asked, frame, labels, seed=1)
    scaling = fitted.scalings["target_mean"]
    means = training["x target mean"] * scaling.deviation + scaling.center
    fold = np.random.default_rng(1).permutation(len(data)) % folds
    for row, (letter, _) in enumerate(data):
        others = [data[k] for k in range(len(data)) if fold[k] != fold[row]]
        overall = np.mean([number for _, number in others]) if others else 0.5
        same = [number for other, number in others if other == letter]
        expected = (sum(same) + 3.0 * overall) / (len(same) + 3.0)
        assert means[row] == pytest.approx(expected, rel=1e-3, abs=1e-3 * scaling.deviation + 1e-6)
    encoded = fitted.encode(pl.DataFrame({"x": ["a", "z"]})).dense
    assert all(np.isfinite(numbers).all() for numbers in (*encoded, *training.values()))
    new = encoded[0]
    assert new[1] * scaling.deviation + scaling.center == pytest.approx(
        float(labels.mean()), rel=1e-3, abs=1e-3 * scaling.deviation + 1e-6
    )
