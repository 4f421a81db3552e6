"""Rows divided by columns: by time, by group, by class."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.division import divide
from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.parts import Part
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.split import Places
from dlrm.errors import ConfigError, InputError


class Division(NamedTuple):
    where: Places
    notes: tuple[str, ...]


def divided(
    columns: dict[str, list], *, times: tuple[str, ...] = (), labels: list | None = None, **options
) -> Division:
    frame = pl.DataFrame(columns)
    schema = Columns(
        labels=("y",),
        columns=tuple(
            Column(name=name, kind="number", time=name in times) for name in frame.columns
        ),
    )
    classes = np.array(labels or [0] * frame.height)[:, None]
    raw = RawTable((Part(frame, frame.height, "frame"),))
    bad = np.zeros(frame.height, bool)
    return Division(*divide(raw, schema, classes, bad, PrepareConfig(label=("y",), **options)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.booleans())
def test_the_oldest_rows_train_and_the_newest_test(days, as_texts):
    start = datetime(2024, 1, 1)
    times = [start + timedelta(days=day) for day in days]
    written = [str(time) if as_texts else time for time in times]
    where = divided({"t": written}, time="t").where
    assert (where >= 0).all()
    ends = [[day for day, split in zip(days, where, strict=True) if split == k] for k in range(3)]
    before = [part for part in ends if part]
    assert before[0] is ends[0]
    for older, newer in pairwise(before):
        assert max(older) < min(newer)
    if len(set(days)) == len(days) >= 15:
        assert [len(part) for part in ends] == [
            round(len(days) * 0.8),
            round(len(days) * 0.9) - round(len(days) * 0.8),
            len(days) - round(len(days) * 0.9),
        ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=80).map(lambda users: [*users, 1, 2]), st.integers(0, 3)
)
def test_a_group_is_in_one_split_only(users, seed):
    division = divided({"user": users}, group="user", seed=seed)
    where = division.where
    assert (where >= 0).all()
    assert set(where.tolist()) == {0, 1, 2} if len(set(users)) > 2 else {0, 1}
    assert sum(f", {len(set(users))} values" in note for note in division.notes) <= 1
    for user in set(users):
        assert len({split for u, split in zip(users, where, strict=True) if u == user}) == 1
    assert (where == divided({"user": users}, group="user", seed=seed).where).all()


def test_rows_without_a_group_are_groups_of_their_own():
    where = divided({"user": [None] * 1000}, group="user").where
    assert np.bincount(where).tolist() == [800, 100, 100]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(30, 300))
def test_each_split_has_its_share_of_every_class(clicks, rows):
    labels = [1] * clicks + [0] * (rows - clicks)
    where = divided({"x": list(range(rows))}, labels=labels, split="stratified").where
    for label in (0, 1):
        mine = where[np.array(labels) == label]
        assert abs((mine == 0).sum() - 0.8 * len(mine)) <= 0.5


def test_it_says_from_when_to_when():
    days = [f"2024-01-{day:02}" for day in range(10, 0, -1)]
    notes = divided({"t": days}, time="t").notes
    assert notes == (
        "train: 8 rows, t from 2024-01-01 to 2024-01-08",
        "validation: 1 rows, t from 2024-01-09 to 2024-01-09",
        "test: 1 rows, t from 2024-01-10 to 2024-01-10",
    )


def test_times_that_are_not_looked_at_are_said():
    days = [f"2024-01-{day:02}" for day in range(1, 11)]
    (note,) = divided({"t": days}, times=("t",)).notes
    assert "divided at random" in note
    assert "--time t" in note
    assert divided({"t": days}, times=("t",), split="chronological").notes == ()
    (note,) = divided({"t": days[::-1]}, times=("t",), split="chronological").notes
    assert "not in order of t" in note
    assert divided({"t": days}).notes == ()


def test_few_groups_are_shared_out_and_said():
    division = divided({"user": ["a"] * 90 + ["b"] * 5 + ["c"] * 5}, group="user")
    assert sorted(division.notes) == [
        "test: 5 rows, 1 value of user",
        "train: 90 rows, 1 value of user",
        "validation: 5 rows, 1 value of user",
    ]
    assert divided({"user": [1, 2]}, group="user").notes[2] == "test: 0 rows, 0 values of user"


def test_what_cannot_be_divided_so_is_refused():
    with pytest.raises(ConfigError, match="user has one value in all rows"):
        divided({"user": [1, 1]}, group="user")
    with pytest.raises(ConfigError, match=r"groups user holds List\(Int64\), not one"):
        divided({"user": [[1, 2], [3]]}, group="user")
    with pytest.raises(InputError, match=r'row 2, column t.*is "soon", expected a time'):
        divided({"t": ["2024-01-01", "soon"]}, time="t")
    skipped = divided({"t": ["2024-01-01", "soon"]}, time="t", bad_rows="skip")
    assert skipped.where.tolist() == [0, -1]
    with pytest.raises(ConfigError, match='no column of times "when"'):
        divided({"t": [1]}, time="when")
    with pytest.raises(ConfigError, match="not by both"):
        PrepareConfig(time="a", group="b")
    with pytest.raises(ConfigError, match="--time COLUMN"):
        PrepareConfig(split="time")
    with pytest.raises(ConfigError, match="leave one out"):
        PrepareConfig(split="chronological", time="a")
