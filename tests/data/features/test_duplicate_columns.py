"""Columns that only rename another one."""

import numpy as np
import polars as pl
import pytest

from dlrm.data.features.infer import infer
from dlrm.data.sources.frame import FrameSource


@pytest.fixture
def columns(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 60, 2000)
    names = np.array([f"title {7 * k % 60}" for k in range(60)])
    frame = pl.DataFrame(
        {
            "code": codes + 5000,
            "title": names[codes],
            "coarser": names[codes // 2],
            "small": codes % 3,
            "renamed": (codes % 3) + 10,
            "label": rng.integers(0, 2, 2000),
        }
    )
    raw = FrameSource(frame).table(tmp_path, lambda _: None)
    return {column.name: column for column in infer(raw, ["label"]).columns}


def test_the_later_of_two_columns_that_rename_each_other_is_ignored(columns):
    assert columns["code"].kind == "category"
    assert columns["title"].kind == "ignore"
    assert "same as code" in columns["title"].why


def test_columns_that_say_less_or_are_small_stay(columns):
    for name in ("coarser", "small", "renamed"):
        assert columns[name].kind == "category", name
