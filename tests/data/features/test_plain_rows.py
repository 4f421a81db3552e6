"""Rows of Python's values, read value by value, beside the same rows as a frame."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data.encoded import Encoded, join
from dlrm.data.features.column import Column, Cross, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Features
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import series_of

from .tables import with_schema
from .test_encode import assert_same

ROWS = 60
SCALES = ("standard", "log", "log1p", "quantile", "piecewise")


COLUMNS = [
    *(*SCALES, "buckets", "euro", "when", "unix", "city", "size", "code", "rare", "tags", "seen")
]
TEXTS = [
    *("", " ", "0", "3", " 3 ", "3.0", "-3.000", "+3", "3e0", "1.5", ".5", "5.", "1,5", "1.234,5"),
    *("NaN", "nan", "-nan", "inf", "-Infinity", "NA", "n/a", "None", "null", "-", "?", "..", "oo"),
    *("true", "True", "FALSE", "yes", "Rome", "a b", "c1", "a|b", "a||b|", "|", "[1, 2]", "['3']"),
    *("2024-01-03", "2024-01-02 03:04:05", "2024-01-02T03:04:05Z", "0000-00-00", "12:00", "1_000"),
    *(
        "1" * 25,
        "1e400",
        "0x10",
        "\u0663",
        "\x1fodd\x1e",
        "\x1c",
        "\u2003a",
        "\ud800",
        "\0",
        "MISSING",
    ),
]
NUMERIC = [
    *(
        0,
        1,
        -1,
        3,
        2**31,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**63,
        2**64 - 1,
        2**64,
        -(2**64),
        10**25,
    ),
    *(0.0, -0.0, 3.0, 1.5, 1e15, 1e16, 2.0**62, 2.0**63, -(2.0**63), 1e22, 1e300, -1e300, 5e-324),
    *(True, False, 1704164645, 1704164645.5, 10**25, 10**400),
]
texts = st.sampled_from(TEXTS) | st.text(max_size=4)
numbers = st.sampled_from(NUMERIC) | st.integers() | st.floats(allow_nan=False)
small = st.integers(-9, 99) | st.booleans() | st.floats(-9, 9) | st.sampled_from([3.0, -0.0])
items = st.lists(texts | small, max_size=4)
odd = st.lists(st.lists(small, max_size=2), max_size=2) | st.dictionaries(texts, small, max_size=2)
kinds = st.sampled_from([texts, small, texts | small, numbers, texts | numbers, items, items | odd])


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw a few rows, with values of a few columns, each of some kind."""
    rows: list[dict[str, Any]] = [{} for _ in range(draw(st.integers(1, 4)))]
    for name in draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4)):
        values = st.none() | draw(kinds)
        for row in rows:
            row[name] = draw(values)
    return rows


def trained(folder: Path, missing: tuple[str, ...], usual_missing: bool) -> Features:
    """Return features of every kind."""
    rng = np.random.default_rng(0)
    start = datetime.datetime(2024, 1, 1)
    frame = pl.DataFrame(
        {
            **{scale: rng.normal(3, 9, ROWS) for scale in SCALES},
            "euro": [f"{k},5" for k in range(ROWS)],
            "when": [str(start + datetime.timedelta(hours=int(k))) for k in range(ROWS)],
            "city": [("Rome", "3", "true", "a b", "NA", "1.5")[k % 6] for k in range(ROWS)],
            "size": [str(k % 5) for k in range(ROWS)],
            "code": [f"c{k % 9}" for k in range(ROWS)],
            "tags": ["|".join("abc"[: 1 + k % 3]) for k in range(ROWS)],
            "seen": [str([k % 4, k % 3]) for k in range(ROWS)],
            "buckets": rng.integers(0, 9, ROWS),
            "unix": rng.integers(10**9, 2 * 10**9, ROWS),
            "rare": [None if k % 7 == 0 else str(k // 2) for k in range(ROWS)],
            "label": [k % 2 for k in range(ROWS)],
        }
    )
    schema = Columns(
        labels=("label",),
        missing=missing,
        usual_missing=usual_missing,
        columns=(
            *(
                Column(name=scale, kind="number", scale=scale, missing_flag=True, buckets=4)
                for scale in SCALES
            ),
            Column(name="euro", kind="number", format="1234,5"),
            Column(name="buckets", kind="number", buckets=3, dense=False),
            Column(name="when", kind="number", time=True, calendar=True, missing_flag=True),
            Column(name="unix", kind="number", time=True),
            Column(name="city", kind="category", values=Values(target_mean=True, log_count=True)),
            Column(name="rare", kind="category", values=Values(min_count=2)),
            Column(name="size", kind="category"),
            Column(name="code", kind="category", values=Values(hash_rows=17)),
            Column(name="tags", kind="list", separator="|"),
            Column(name="seen", kind="sequence", separator="[]", max_length=2),
        ),
        crosses=(Cross(columns=("city", "buckets")), Cross(columns=("city", "size", "rare"))),
    )
    return Features.load(with_schema(frame, folder / "out", schema).path)


SETTINGS = {
    "usual": ((), True),
    "tokens": (("MISSING", "?", "3", "true"), True),
    "strict": (("a b",), False),
}


@pytest.fixture(scope="module", params=SETTINGS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Features]:
    """Return a function that gives features: an example would show all of themselves."""
    features = trained(tmp_path_factory.mktemp(request.param), *SETTINGS[request.param])
    return lambda: features


def by_frame(features: Features, row: dict[str, Any]) -> Encoded:
    """Return a row as a frame of it is encoded."""
    columns = [series_of(name, [row.get(name)]) for name in features.needed]
    return encode_frame(features, pl.DataFrame(columns))


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables())
def test_values_are_what_a_frame_of_each_row_has(made, rows):
    features = made()
    read = features.plain_rows(rows)
    singly = [features.plain_rows([row]) for row in rows]
    # What one row holds changes no other, though all are read so, or none.
    assert read is None or None not in singly
    encoded = []
    for row, one in zip(rows, singly, strict=True):
        if one is not None:
            encoded.append(features.encode(one))
            assert_same(encoded[-1], by_frame(features, row))
    if read is not None:
        together = features.encode(read)
        for name in ("dense", "ids"):
            expected = np.concatenate([getattr(one, name) for one in encoded])
            np.testing.assert_array_equal(getattr(together, name), expected)
        assert np.isfinite(together.dense).all()
        lists = [one.lists for one in encoded if one.lists is not None]
        assert together.lists is not None
        for mine, theirs in zip(together.lists, join(lists), strict=True):
            np.testing.assert_array_equal(mine, theirs)
