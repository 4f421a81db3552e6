"""The raw log by days, and the order in which the original trains on them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from dlrm.compat.criteo_log import Day, OriginalCriteo, in_memory, memory_mapped, raw_files
from dlrm.compat.flags import Flags
from dlrm.data.sources.criteo import CriteoSource
from dlrm.errors import ConfigError, InputError

from .logs import write_log


def read(source: OriginalCriteo | CriteoSource) -> pl.DataFrame:
    return pl.concat(source.read())


@pytest.mark.parametrize("rows", [7, 100, 103])
def test_days_of_one_file(tmp_path: Path, rows: int):
    source = OriginalCriteo([write_log(tmp_path / "train.txt", rows)], 7, 0.0, 123)
    assert len(read(source)) == rows
    sizes = [rows // 7 + (day < rows % 7) for day in range(7)]
    assert source.days == [Day(size, size) for size in sizes]


def test_a_file_a_day(tmp_path: Path):
    files = [write_log(tmp_path / f"day_{day}", 5 + day, seed=day) for day in range(3)]
    source = OriginalCriteo(files, 1, 0.0, 123)
    whole = read(source)
    assert source.days == [Day(5, 5), Day(6, 6), Day(7, 7)]
    assert whole.equals(read(CriteoSource(files)).with_columns(pl.col("^C.*$").fill_null(0)))


def test_sub_sampling_drops_rows_without_a_click(tmp_path: Path):
    file = write_log(tmp_path / "train.txt", 140)
    source = OriginalCriteo([file], 7, 0.6, 9)
    labels = read(CriteoSource(file))["label"].to_numpy()
    keep = (labels == 1) | (RandomState(9).uniform(size=140) >= 0.6)
    kept = read(source)
    assert kept["label"].to_list() == labels[keep].tolist()
    assert sum(kept["label"]) == sum(labels)
    assert 0 < len(kept) < 140
    days = [Day(20, int(day.sum())) for day in np.split(keep, 7)]
    assert source.days == days
    # Reading it again gives the same rows.
    assert read(source).equals(kept)
    assert source.days == days


def test_the_fingerprint_changes_with_the_rows(tmp_path: Path):
    file = write_log(tmp_path / "train.txt", 20)

    def fingerprint(rate: float, seed: int):
        return OriginalCriteo([file], 7, rate, seed).fingerprint()

    assert fingerprint(0.0, 1) == fingerprint(0.0, 2)
    assert fingerprint(0.5, 1) != fingerprint(0.5, 2)
    assert fingerprint(0.5, 1) != fingerprint(0.6, 1)
    before = fingerprint(0.0, 1)
    write_log(file, 20, seed=1)
    assert fingerprint(0.0, 1) != before


def test_missing_categories_are_0_and_large_ones_are_fine(tmp_path: Path):
    frame = read(OriginalCriteo([write_log(tmp_path / "train.txt", 50)], 7, 0.0, 1))
    categories = frame.select("^C.*$")
    assert categories.null_count().sum_horizontal().item() == 0
    assert categories["C2"].min() == 0
    assert int(categories["C2"].max()) > 0xFFFFFFF0  # pyright: ignore[reportArgumentType]


def test_files_of_the_flags(tmp_path: Path):
    assert raw_files(Flags(raw_data_file="train.txt")) == [Path("train.txt")]
    (tmp_path / "day_1.gz").touch()
    days = raw_files(Flags(data_set="terabyte", raw_data_file=f"{tmp_path}/day"))
    assert len(days) == 24
    assert [day.name for day in days[:3]] == ["day_0", "day_1.gz", "day_2"]
    with pytest.raises(ConfigError, match="--raw-data-file is missing"):
        raw_files(Flags())


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        OriginalCriteo([tmp_path / "nowhere.txt"], 7, 0.0, 1)


days = st.lists(st.integers(1, 40), min_size=2, max_size=7)
seeds = st.integers(0, 2**32 - 1)
randomize = st.sampled_from(["total", "day", "none"])


@settings(deadline=None)
@given(days, seeds, randomize, st.sampled_from([in_memory, memory_mapped]))
def test_every_training_row_comes_once(rows, seed, randomize, order):
    found = order(rows, randomize, RandomState(seed))
    train = sum(rows[:-1])
    assert sorted(found.tolist()) == list(range(train))
    bounds = np.cumsum([0, *rows[:-1]])
    if randomize == "none":
        assert found.tolist() == list(range(train))
    if randomize == "day":
        for first, last in pairwise(bounds):
            assert sorted(found[first:last].tolist()) == list(range(first, last))


@settings(deadline=None)
@given(days, seeds)
def test_rows_are_thrown_into_days_one_by_one(rows, seed):
    """The shuffle out of core against its definition, row by row."""
    rng, expected_rng = RandomState(seed), RandomState(seed)
    found = memory_mapped(rows, "total", rng)
    buckets: list[list[int]] = [[] for _ in rows[:-1]]
    row = 0
    for day, size in enumerate(rows):
        drawn = expected_rng.randint(0, len(buckets), size)
        for choice in drawn if day < len(rows) - 1 else []:
            bucket = choice
            while len(buckets[bucket]) >= rows[bucket]:
                bucket = expected_rng.randint(0, len(buckets))
            buckets[bucket].append(row)
            row += 1
    expected = [np.array(b)[expected_rng.permutation(len(b))] for b in buckets]
    assert found.tolist() == np.concatenate(expected).tolist()
    # Both have drawn as many numbers: what comes next is the same.
    assert rng.random_sample() == expected_rng.random_sample()


def test_shuffles_differ_by_seed_and_really_mix():
    rows = [50] * 7
    one, other = (memory_mapped(rows, "total", RandomState(seed)) for seed in (1, 2))
    assert not np.array_equal(one, other)
    days_in_first = set((one[:50] // 50).tolist())
    assert len(days_in_first) == 6


@pytest.mark.parametrize("order", [in_memory, memory_mapped])
def test_without_shuffling_nothing_is_drawn(order):
    rng = RandomState(5)
    order([3, 3, 3], "none", rng)
    assert rng.random_sample() == RandomState(5).random_sample()
