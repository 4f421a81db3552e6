"""A model of a click log: near to its source, and nothing in it of a few rows."""

import json

import numpy as np
import polars as pl
import pytest

from dlrm.cli import main
from dlrm.commands.fit_log import decoded, fit_log, quality
from dlrm.data.click_card import compare
from dlrm.data.click_model import ClickModel, real_values
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import ConfigError, InputError
from dlrm.json_file import write_sealed

ROWS = 6000


def table(rows: int = ROWS) -> pl.DataFrame:
    """Return rows with dependent columns, missing values, values of one row, and a label."""
    rng = np.random.default_rng(0)
    city = rng.choice(["ulm", "bonn", "kiel", "jena"], rows, p=[0.5, 0.3, 0.15, 0.05])
    # A district lies in a city.
    district = np.char.add(np.char.add(city, "-"), rng.integers(0, 3, rows).astype(str))
    age = np.where(rng.random(rows) < 0.2, np.nan, np.round(rng.gamma(9, 4, rows)))
    income = np.exp(rng.normal(8, 1, rows)) + 700 * np.nan_to_num(age)
    user = [f"secret-{i}" if r < 0.3 else f"user-{i % 40}" for i, r in enumerate(rng.random(rows))]
    chance = 1 / (1 + np.exp(2.2 - 1.5 * (city == "kiel") - 0.03 * np.nan_to_num(age)))
    return pl.DataFrame(
        {
            "bought": (rng.random(rows) < chance).astype(np.uint8),
            "city": city,
            "district": district,
            "age": pl.Series(age, nan_to_null=True),
            "income": income,
            "user": user,
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    config = PrepareConfig(label=("bought",))
    return prepare(FrameSource(table()), tmp_path_factory.mktemp("d") / "d", config).dataset


@pytest.fixture(scope="module")
def model(dataset):
    return ClickModel.fit(dataset)


def generated(model, rows=ROWS, **settings):
    return pl.concat(model.frames(rows, **settings))


def test_columns_pairs_and_click_rate_are_near(dataset, model):
    synthetic = generated(model, values=real_values(dataset))
    card = compare(decoded(dataset, synthetic), synthetic, "bought")

    # Of users, the dataset knows those of several rows alone.
    off = {name: value for name, value in card.marginals.items() if name != "user"}
    pairs = [value for name, value in card.pairs.items() if "user" not in name]
    assert max(off.values()) < 0.06
    assert sum(pairs) / len(pairs) < 0.08
    assert max(card.dependence.values()) < 0.12
    assert card.click_rate < 0.02


def test_what_one_column_says_of_another_is_kept(dataset, model):
    synthetic = generated(model, values=real_values(dataset))
    pairs = synthetic.select(city="city", of=pl.col("district").str.split("-").list.first())

    assert (pairs["city"] == pairs["of"]).mean() > 0.97


def test_missing_values_are_as_frequent(model):
    shares = generated(model).null_count().row(0, named=True)

    assert shares["age"] / ROWS == pytest.approx(0.2, abs=0.03)
    assert shares["income"] == shares["city"] == 0


def test_the_label_depends_on_what_it_did(dataset, model):
    synthetic = generated(model, rows=20_000, values=real_values(dataset))
    kiel, others = (
        synthetic.filter((pl.col("city") == "kiel") == side)["bought"].cast(pl.Float64).mean()
        for side in (True, False)
    )
    real = table(20_000)
    expected = [
        real.filter((pl.col("city") == "kiel") == side)["bought"].cast(pl.Float64).mean()
        for side in (True, False)
    ]

    assert [kiel, others] == pytest.approx(expected, abs=0.05)


def test_no_value_and_no_row_is_in_the_file(model):
    text = json.dumps(model.to_dict())
    rows = table()

    for column in ("city", "district", "user"):
        assert not any(value in text for value in rows[column].unique().to_list())
    # Incomes are of one row each.
    incomes = set(rows["income"].to_list())
    ends = {end for column in model.columns for end in column.edges}
    assert not incomes & ends
    assert rows["income"].max() not in ends
    synthetic = generated(model)
    assert not set(synthetic["income"].to_list()) & incomes
    assert synthetic["income"].max() <= rows["income"].max()


def test_what_fewer_rows_have_than_the_threshold_is_in_no_table(dataset):
    few, many = (ClickModel.fit(dataset, threshold=threshold) for threshold in (400, 10))
    users = [next(c for c in model.columns if c.name == "user") for model in (few, many)]

    # No user has so many rows: they are one code, beside that of those seen once.
    assert len(users[0].ids) == 2
    assert len(users[1].ids) > 40
    counts = np.bincount(dataset.split("train").ids[:, 2])
    assert users[0].ids == (1, (counts > 0).sum() - 1)


def test_a_model_that_was_written_generates_the_same(model):
    back = ClickModel.of(json.loads(json.dumps(model.to_dict())), "x")

    one, two = (generated(m, 500, seed=3) for m in (back, back))
    assert one.equals(two)
    assert not one.equals(generated(back, 500, seed=4))
    assert one.columns == ["bought", "city", "district", "age", "income", "user"]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 9},
        {"format": "x"},
        {"columns": [{}]},
        {"columns": 3},
        {"bias": "x"},
    ],
)
def test_other_files_are_errors(model, change):
    with pytest.raises(InputError):
        ClickModel.of(model.to_dict() | change, "file.json")


def test_sdmetrics_scores_the_table_where_it_is_installed(dataset, model):
    pytest.importorskip("sdmetrics")
    synthetic = generated(model, values=real_values(dataset))
    score = quality(decoded(dataset, synthetic), synthetic)

    assert score is not None
    assert 0.5 < score <= 1


def test_too_few_rows_and_other_labels_are_errors(tmp_path):
    config = PrepareConfig(label=("bought",))
    small = prepare(FrameSource(table(100)), tmp_path / "a", config).dataset
    with pytest.raises(ConfigError, match="200 or more"):
        ClickModel.fit(small)
    numbers = table(400).with_columns(bought=pl.col("income"))
    config = PrepareConfig(label=("bought",), task="regression")
    with pytest.raises(ConfigError, match="one label, of clicks"):
        ClickModel.fit(prepare(FrameSource(numbers), tmp_path / "b", config).dataset)


def test_fit_and_generate_from_the_command_line(workdir, capsys):
    table(2000).write_csv("visits.csv")
    words = ["data", "prepare", "table", "visits.csv", "--label", "bought", "--out", "d"]
    assert main(words) == 0
    made = ["data", "generate", "--profile", "p.json", "--rows"]
    result = fit_log("d", out=workdir / "p.json", learners=("lr",))
    assert main([*made, "500", "--out", "s.csv"]) == 0
    assert main([*made, "9", "--out", "s.parquet"]) == 0

    assert set(result.learners["lr"]) == {"real", "synthetic"}
    rows = pl.read_csv("s.csv")
    assert rows.columns[0] == "bought"
    assert len(rows) == 500
    assert main(["train", "s.csv", "--label", "bought", "--max-steps", "2", "--no-baseline"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "x.csv"],
        ["clicks", "--profile", "p.json", "--out", "x.csv"],
        ["--profile", "missing.json", "--out", "x.csv"],
        ["--profile", "p.json", "--out", "x.txt"],
        ["--profile", "p.json", "--out", "x.csv"],
    ],
)
def test_what_cannot_be_generated_is_said(workdir, words, capsys):
    write_sealed(workdir / "p.json", {"format": "other", "version": 1})

    assert main(["data", "generate", *words]) in (1, 2)
    assert "error" in capsys.readouterr().err
    assert not (workdir / "x.csv").exists()
