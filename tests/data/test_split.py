import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.split import SPLITS, Places, kaggle_sizes, pieces, plan, sizes
from dlrm.errors import ConfigError


def gather(where: Places) -> dict[str, list[int]]:
    """Return the rows of each split."""
    return {name: np.arange(len(where))[rows].tolist() for name, rows in pieces(where)}


@settings(deadline=None)
@given(
    rows=st.integers(0, 300),
    protocol=st.sampled_from(["kaggle", "chronological", "random"]),
    seed=st.integers(0, 5),
)
def test_every_row_is_in_one_split(rows, protocol, seed):
    by_split = gather(plan(protocol, rows, fractions=(0.6, 0.1, 0.3), seed=seed))
    assert sorted(row for each in by_split.values() for row in each) == list(range(rows))
    train, validation, test = map(len, by_split.values())
    expected = kaggle_sizes(rows) if protocol == "kaggle" else sizes(rows, (0.6, 0.1, 0.3))
    assert (train, validation, test) == expected


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 13, 20, 21, 699, 700, 10_001])
def test_kaggle_is_the_original_protocol(rows):
    day, longer = divmod(rows, 7)
    per_day = [day + (number < longer) for number in range(7)]
    bounds = np.cumsum(per_day)[:-1]
    days = np.array_split(np.arange(rows), bounds)
    test, validation = np.array_split(days[-1], 2)
    by_split = gather(plan("kaggle", rows, fractions=(1, 0, 0), seed=0))
    assert by_split["train"] == np.concatenate(days[:-1]).tolist()
    assert by_split["test"] == test.tolist()
    assert by_split["validation"] == validation.tolist()
    assert kaggle_sizes(rows) == (len(by_split["train"]), len(validation), len(test))


def test_days_hold_the_last_file_out():
    by_split = gather(plan("days", 20, fractions=(1, 0, 0), seed=0, days=[8, 7, 5]))
    assert by_split == {"train": list(range(15)), "test": [15, 16, 17], "validation": [18, 19]}
    with pytest.raises(ConfigError, match="two or more, but there is 1"):
        plan("days", 20, fractions=(1, 0, 0), seed=0, days=[20])


def test_random_depends_on_the_seed_and_keeps_its_proportions_everywhere():
    rows = 200_000
    first, again, other = (
        gather(plan("random", rows, fractions=(0.5, 0.2, 0.3), seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["test"] != other["test"]
    assert [len(first[name]) for name in SPLITS] == [100_000, 40_000, 60_000]
    for name, share in zip(SPLITS, (0.5, 0.2, 0.3), strict=True):
        assert np.histogram(first[name], 4, (0, rows))[0] == pytest.approx(
            [rows * share / 4] * 4, rel=0.05
        )


def test_more_rows_than_one_run_are_divided_exactly():
    where = plan("random", 65_536 * 2 + 3, fractions=(131_000, 1, 0), seed=0)
    by_split = gather(where)
    assert [len(by_split[name]) for name in SPLITS] == [131_000, 1, 0]


@given(st.integers(0, 10**9), st.tuples(*[st.integers(0, 100)] * 3).filter(any))
def test_fractions_give_all_rows(rows, weights):
    shares = [weight / sum(weights) for weight in weights]
    given = sizes(rows, shares)
    assert sum(given) == rows
    assert all(abs(have - rows * share) <= 1 for have, share in zip(given, shares, strict=True))


def test_counts_are_taken_as_they_are():
    assert sizes(72_000, (64_000, 8_000, 0)) == (64_000, 8_000, 0)
    assert sizes(72_000, (10, 0, 5)) == (10, 0, 5)
    assert sizes(72_000, (1, 0, 0)) == (72_000, 0, 0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.1, 0.1), "0.5/0.1/0.1"),
        ((1.5, -0.5, 0), "none below 0"),
        ((float("nan"), 0, 0), "nan/0/0"),
        ((0.8, 0.2), "train/validation/test"),
        ((90, 20, 0), "90/20/0 rows are asked for, but the log has 100"),
        ((90.5, 1, 1), "sum to 1, or three row counts"),
    ],
)
def test_fractions_without_meaning(shares, message):
    with pytest.raises(ConfigError, match=message):
        sizes(100, shares)


def test_an_unknown_protocol_lists_the_choices():
    with pytest.raises(ConfigError, match="kaggle, days, chronological, random"):
        plan("weekly", 10, fractions=(1, 0, 0), seed=0)
