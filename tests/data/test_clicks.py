"""The generated click log: what a seed means, and that the truth is the truth."""

from io import BytesIO
from math import sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm import models
from dlrm.batch import Batch
from dlrm.data.sources.click_truth import (
    BIAS,
    CATEGORIES,
    COUNT_VARIANCE,
    COUNTS,
    DRAWS,
    ID_VARIANCE,
    MISSING,
    PAIR_VARIANCE,
    PAIRS,
    RESOLUTION,
    plant,
)
from dlrm.data.sources.clicks import CHUNK, ClicksSource
from dlrm.data.sources.criteo import CriteoSource, write_lines
from dlrm.errors import ConfigError
from dlrm.metrics import auc, measure
from dlrm.models.lr import LRConfig
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import Adagrad
from dlrm.schema import Schema

ROWS = 3 * CHUNK


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return pl.concat(ClicksSource(ROWS, seed=7).read())


def values(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return counts, and ids as the truth numbers them, from what the log holds."""
    ids_and_counts = {c.name: frame[c.name].fill_null(MISSING).to_numpy() for c in COUNTS}
    for table, category in enumerate(CATEGORIES):
        keys = pl.DataFrame(
            {"key": [None, *category.keys(table)[1:].tolist()], "id": range(category.values + 1)},
            schema={"key": pl.UInt32, "id": pl.Int64},
        )
        ids = frame.select(key=category.name).join(
            keys, on="key", how="left", nulls_equal=True, maintain_order="left"
        )
        ids_and_counts[category.name] = ids["id"].to_numpy()
    return ids_and_counts


def logits(truth: pl.Series) -> np.ndarray:
    p = truth.to_numpy().astype(np.float64)
    return np.log(p / (1 - p))


@settings(deadline=None, max_examples=5)
@given(short=st.integers(1, CHUNK + 1000), more=st.integers(0, CHUNK), seed=st.integers(0, 2**40))
def test_a_shorter_log_is_the_beginning_of_a_longer_one(short: int, more: int, seed: int) -> None:
    beginning = pl.concat(ClicksSource(short, seed).read())
    longer = pl.concat(ClicksSource(short + more, seed).read())
    assert beginning.height == short
    assert longer.height == short + more
    assert longer.head(short).equals(beginning)


def test_another_seed_gives_other_rows_of_the_same_world() -> None:
    one, two = (pl.concat(ClicksSource(20_000, seed).read()) for seed in (0, 1))
    assert not one.equals(two)
    assert one["C6"].drop_nulls().unique().sort().equals(two["C6"].drop_nulls().unique().sort())
    # The truth of a row follows from its columns alone, whatever the seed.
    truth = plant(0)
    for frame in (one, two):
        p = 1 / (1 + np.exp(-truth.logits(values(frame))))
        np.testing.assert_allclose(frame["truth"].to_numpy(), p, rtol=0, atol=1 / RESOLUTION)
    other = pl.concat(ClicksSource(20_000, 0, world=1).read())
    assert other.select(pl.exclude("label", "truth")).equals(
        one.select(pl.exclude("label", "truth"))
    )
    assert np.corrcoef(logits(other["truth"]), logits(one["truth"]))[0, 1] < 0.7


def test_a_seed_means_the_same_rows_for_ever() -> None:
    # A change here changes every published figure: raise the fingerprint's version with it.
    first = pl.concat(ClicksSource(1, 0).read()).row(0, named=True)
    assert {name: first[name] for name in ("label", "I2", "I5", "C1", "C20", "C22", "C26")} == {
        "label": 0,
        "I2": -2,
        "I5": 1907,
        "C1": 0x30F4C306,
        "C20": 0x9E44E2E1,
        "C22": None,
        "C26": 0xEE3BF0D6,
    }
    assert ClicksSource(5, 1).fingerprint() != ClicksSource(5, 2).fingerprint()
    assert ClicksSource(5, 1).fingerprint() != ClicksSource(6, 1).fingerprint()
    assert ClicksSource(5, 1).fingerprint() != ClicksSource(5, 1, world=1).fingerprint()


def test_columns_are_those_of_a_source(log: pl.DataFrame) -> None:
    source = ClicksSource(1)
    assert log.columns == ["label", *source.dense, *source.categorical, "truth"]
    assert log["label"].dtype == pl.UInt8
    assert log["truth"].dtype == pl.Float32
    assert {log[name].dtype for name in source.dense} == {pl.Int64}
    assert {log[name].dtype for name in source.categorical} == {pl.UInt32}
    assert log["label"].null_count() == log["truth"].null_count() == 0
    assert log["label"].is_in([0, 1]).all()
    assert log["I2"].min() == -2


def test_labels_are_drawn_with_the_probabilities_of_truth(log: pl.DataFrame) -> None:
    p, y = log["truth"].to_numpy().astype(np.float64), log["label"].to_numpy()
    # float32 holds the very probability, not one near it.
    assert ((p * RESOLUTION) % 1 == 0).all()
    bins = np.minimum((np.argsort(np.argsort(p)) * 50) // len(p), 49)
    clicks, expected = np.bincount(bins, y), np.bincount(bins, p)
    spread = np.bincount(bins, p * (1 - p))
    chi_square = float(((clicks - expected) ** 2 / spread).sum())
    # 50 degrees of freedom: mean 50, standard deviation 10.
    assert 15 < chi_square < 100
    # Also where other columns might have been read instead: within each value of a category.
    for name in ("C6", "C17", "C23"):
        residual = log.group_by(name).agg(
            z=(pl.col("label") - pl.col("truth")).sum()
            / (pl.col("truth") * (1 - pl.col("truth"))).sum().sqrt()
        )
        assert residual["z"].abs().max() < 4.5  # pyright: ignore[reportOperatorIssue]


def test_missing_rates_are_as_planned(log: pl.DataFrame) -> None:
    for column in (*COUNTS, *CATEGORIES):
        rate = log[column.name].null_count() / ROWS
        error = 5 * sqrt(column.missing * (1 - column.missing) / ROWS)
        assert rate == pytest.approx(column.missing, abs=error), column.name


def test_popularity_follows_its_power_law(log: pl.DataFrame) -> None:
    for table, category in enumerate(CATEGORIES):
        counts = dict(log[category.name].value_counts().iter_rows())
        keys = category.keys(table)
        shares = np.array([counts.get(int(key), 0) for key in keys[1:51]]) / ROWS
        expected = category.probabilities()[1:51]
        error = 5 * np.sqrt(expected * (1 - expected) / ROWS)
        assert (np.abs(shares - expected) <= error).all(), category.name
        # P(r) is proportional to (r + 1)^-exponent, stated here on its own.
        slope = np.log(expected[-1] / expected[0]) / np.log((len(expected) + 1) / 2)
        assert slope == pytest.approx(-category.exponent)
        assert set(counts) - {None} <= set(keys[1:].tolist())


def test_counts_have_their_heavy_tails() -> None:
    grid = np.arange(0, DRAWS, 2**12, dtype=np.uint32)
    for count in COUNTS:
        drawn = count.sample(grid)
        present = drawn[drawn != MISSING]
        for x in (count.scale, 8 * count.scale):
            at = np.ceil(x) + count.low
            if at <= count.high:
                tail = (1 + np.ceil(x) / count.scale) ** (-1 / count.tail)
                assert (present >= at).mean() == pytest.approx(tail, abs=1e-4), count.name
        assert present.max() <= count.high


def test_keys_are_distinct_over_all_tables() -> None:
    keys = np.concatenate([category.keys(t)[1:] for t, category in enumerate(CATEGORIES)])
    assert len(np.unique(keys)) == len(keys)


@pytest.mark.parametrize("world", range(4))
def test_variances_of_the_truth_are_exact(world: int) -> None:
    truth = plant(world)
    for category in CATEGORIES:
        p, ids = category.probabilities(), truth.categories[category.name]
        assert ids.effects @ p == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(ids.vectors @ p, 0, atol=1e-12)
    effects = sum(truth.categories[c.name].effects ** 2 @ c.probabilities() for c in CATEGORIES)
    assert effects == pytest.approx(ID_VARIANCE)
    # All parts together, on rows of this world: they are uncorrelated, so variances add up.
    frame = pl.concat(ClicksSource(2 * CHUNK, seed=3, world=world).read())
    z = logits(frame["truth"])
    assert z.mean() == pytest.approx(BIAS, abs=0.02)
    assert z.var() == pytest.approx(COUNT_VARIANCE + ID_VARIANCE + PAIR_VARIANCE, rel=0.05)
    assert frame["label"].to_numpy().mean() == pytest.approx(0.25, abs=0.015)
    best = auc(z, frame["label"].to_numpy())
    assert best is not None
    assert 0.80 < best < 0.82


def test_truth_is_its_equation(log: pl.DataFrame) -> None:
    truth, ids_and_counts = plant(0), values(log.head(200))
    for row in range(200):
        f = 0.0
        for count in COUNTS:
            curve, x = truth.curves[count.name], max(int(ids_and_counts[count.name][row]), 0)
            t = np.log(1 + x) / (np.log(1 + x) + np.log(1 + count.scale))
            f += curve.a + curve.b * t + curve.c * t * t
        logit = BIAS + f
        vectors = {"counts": truth.direction[:, 0] * f}
        for category in CATEGORIES:
            ids, chosen = truth.categories[category.name], ids_and_counts[category.name][row]
            logit += ids.effects[chosen]
            vectors[category.name] = ids.vectors[:, chosen]
        logit += sum(truth.factors[s, t] * vectors[s] @ vectors[t] for s, t in PAIRS)
        assert log["truth"][row] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_the_optimum_is_out_of_reach_of_logistic_regression(log: pl.DataFrame) -> None:
    ids_and_counts = values(log)
    dense = np.stack([np.log1p(np.maximum(ids_and_counts[c.name], 0)) for c in COUNTS], axis=1)
    ids = np.stack([ids_and_counts[c.name] for c in CATEGORIES], axis=1)
    held_out, size = 2 * CHUNK, 1024
    data = Batch.of(dense.astype(np.float32), ids, log["label"].to_numpy()[:, None])
    schema = Schema.one_hot(len(COUNTS), [c.values + 1 for c in CATEGORIES])
    lr = models.build(LRConfig(), schema)
    optimizer = Adagrad(parameter_groups(lr), lr=0.05)
    for start in range(0, held_out, size):
        batch = data.slice(start, start + size)
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(lr(batch), batch.labels).backward()
        optimizer.step()
    with torch.no_grad():
        test = data.slice(held_out, ROWS)
        clicks = test.labels[:, 0].numpy()
        model = measure(lr(test)[:, 0].numpy(), clicks)
    best = measure(logits(log["truth"][held_out:]), clicks)
    assert model.auc is not None
    assert best.auc is not None
    assert 0.68 < model.auc < best.auc - 0.05
    assert model.log_loss is not None
    assert best.log_loss is not None
    assert best.log_loss + 0.03 < model.log_loss < 0.54


def test_text_and_back(tmp_path: Path) -> None:
    source = ClicksSource(3000, seed=2)
    frame = pl.concat(source.read())
    stream = BytesIO()
    write_lines(frame, stream, label="label", dense=source.dense, categorical=source.categorical)
    file = tmp_path / "log.txt"
    file.write_bytes(stream.getvalue())
    back = pl.concat(CriteoSource(file).read())
    assert back.equals(frame.drop("truth"))
    line = stream.getvalue().split(b"\n")[0].split(b"\t")
    assert len(line) == 40
    assert all(len(digits) in (0, 8) and digits == digits.lower() for digits in line[14:])


@pytest.mark.parametrize("setting", ["rows", "seed", "world"])
def test_a_setting_without_meaning_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is -1, expected at least"):
        ClicksSource(**{setting: -1})
