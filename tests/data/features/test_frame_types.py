"""Types that a frame may hold: supported, or an error that names the column."""

import uuid
from datetime import date, time
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import FrameSource, to_polars
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import InputError

from .tables import inferred, prepare

N = 120
RNG = np.random.default_rng(0)
Q = RNG.normal(size=N)
DAYS = pd.date_range("2024-01-01", periods=N, tz="Europe/Zurich")
GROUPS = RNG.integers(0, 30, N)
PANDAS = {
    "qcut": (pd.qcut(pd.Series(Q), 5), "category"),
    "period": (pd.Series(pd.period_range("2010-01", periods=N, freq="M")), "number"),
    "intervals": (pd.Series([pd.Interval(k, k + 1) for k in GROUPS]), "category"),
    "sets": (pd.Series([{int(k), 99} for k in GROUPS]), "list"),
    "tuples": (pd.Series([(int(k), 99) for k in GROUPS]), "list"),
    "long doubles": (pd.Series(Q.astype("longdouble")), "number"),
    "half": (pd.Series(Q.astype("float16")), "number"),
    "decimals": (pd.Series([Decimal(f"{x:.3f}") for x in Q]), "number"),
    "durations": (pd.Series([pd.Timedelta(seconds=float(abs(x))) for x in Q]), "number"),
    "few durations": (pd.Series([pd.Timedelta(hours=int(k) % 5) for k in GROUPS]), "category"),
    "clocks": (pd.Series([time(int(k) % 24, 5) for k in GROUPS]), "number"),
    "days": (pd.Series([date(2024, 1, 1 + int(k)) for k in GROUPS]), "number"),
    "seconds": (pd.Series(DAYS.tz_localize(None).astype("datetime64[s]")), "number"),
    "zones": (pd.Series(DAYS), "number"),
    "codes": (pd.Series(GROUPS).astype("category"), "category"),
    "float codes": (pd.Series(GROUPS / 2).astype("category"), "category"),
    "truths": (pd.Series(Q > 0).astype("boolean"), "category"),
    "uuids": (pd.Series([uuid.UUID(int=int(k)) for k in GROUPS]), "category"),
    "mixed": (pd.Series([int(k) if k % 2 else f"x{k}" for k in GROUPS]), "category"),
    "nothing": (pd.Series([None] * N), "ignore"),
    "bytes": (pd.Series([b"x"] * N), "ignore"),
}
REFUSED = {
    "complex": pd.Series(Q * 1j),
    "dicts": pd.Series([{"a": 1}] * N),
    "objects": pd.Series([object() for _ in Q]),
    "nested": pd.Series([[["a"]]] * N),
}


@pytest.mark.parametrize("name", PANDAS)
def test_types_of_pandas(name, tmp_path):
    column, kind = PANDAS[name]
    frame = pd.DataFrame({"c": column, "q": Q, "label": (Q > 0).astype(int)})
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    assert schema.column("c").kind == kind
    made = prepare(FrameSource(frame), tmp_path / "out")
    features = Features.load(made.path)
    for rows in (3, N):
        encoded = encode_frame(features, frame.head(rows))
        assert np.isfinite(encoded.dense).all()


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_are_refused(name):
    frame = pd.DataFrame({"c": REFUSED[name], "q": Q})
    with pytest.raises(InputError, match="the frame, column c: holds "):
        FrameSource(frame)
    # A column that nobody needs is not looked at.
    assert to_polars(frame).height == N


def test_types_of_polars(tmp_path):
    source = {"c": pl.Series([{"a": 1}] * N), "q": pl.Series(Q)}
    for column in (source["c"], pl.Series([object()] * N, dtype=pl.Object)):
        with pytest.raises(InputError, match="the frame, column c: holds "):
            FrameSource(pl.DataFrame({**source, "c": column}))
    made = prepare(
        pl.DataFrame({"c": GROUPS, "q": Q, "label": (Q > 0).astype(int)}), tmp_path / "a"
    )
    with pytest.raises(InputError, match="column q: holds Struct"):
        encode_frame(Features.load(made.path), pl.DataFrame({"c": GROUPS, "q": source["c"]}))


def test_a_category_is_equal_whatever_type_it_has(tmp_path):
    label = (Q > 0).astype(int)
    frame = pd.DataFrame({"c": pd.Series(GROUPS).astype("category"), "q": Q, "label": label})
    features = Features.load(prepare(FrameSource(frame), tmp_path / "out").path)
    expected = encode_frame(features, frame).ids
    for column in (GROUPS, GROUPS.astype(float), GROUPS.astype(str)):
        other = pl.DataFrame({"c": column, "q": Q})
        np.testing.assert_array_equal(encode_frame(features, other).ids, expected)


@pytest.mark.parametrize("names", [("^.*$", "*"), ("^q.*$", "q"), ("[a]", "a{b}")])
def test_names_are_never_patterns(names, tmp_path):
    one, other = names
    label = "^label.*$"
    texts = [f"x{k}" for k in GROUPS]
    tags = [[text, "t"] for text in texts]
    plain = pl.DataFrame({"a": Q, "b": texts, "c": tags, "label": (Q > 0).astype(int)})
    renamed = {"a": one, "b": other, "c": f"{one[:-1]}|z$", "label": label}
    made = prepare(plain.rename(renamed), tmp_path / "out", label=(label,), missing=("x1",))
    plain = plain.with_columns(pl.col("b").replace("x1", None))
    same = prepare(plain, tmp_path / "plain")
    np.testing.assert_array_equal(made.split("train").dense, same.split("train").dense)
    np.testing.assert_array_equal(made.split("train").ids, same.split("train").ids)
    np.testing.assert_array_equal(made.split("train").labels, same.split("train").labels)
    frame = plain.rename(renamed)
    for rows in (2, N):
        assert encode_frame(Features.load(made.path), frame.head(rows)).dense.shape[0] == rows


def test_columns_of_one_name_are_named():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", 0, "0"])
    with pytest.raises(InputError, match="the frame, column 0: two columns are called that"):
        FrameSource(frame)


ARROW_SCHEMA = (
    "/////zABAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAEAAAAXP///wQAAAADAAAA0AAAAGgAAAAEAAAAsP///wAAAQUU"
    "AAAAQAAAABwAAAAEAAAAAAAAAAEAAAB0AAAACAAQAAgABAAIAAAADAAAAAEAAAAAAAAAVP///wAAAAEgAAAABAAEAAQA"
    "AAAQABgACAAGAAcADAAQABQAEAAAAAAAAQIUAAAAPAAAACQAAAAEAAAAAAAAAAgAAAB6aXAgY29kZQAAAAAIAAgAAAAE"
    "AAgAAAAEAAAAtP///wAAAAEgAAAAwP///wAAAAFAAAAAEAAUAAgABgAHAAwAAAAQABAAAAAAAAECEAAAACAAAAAEAAAA"
    "AAAAAAUAAABwbGFpbgAAAAgADAAIAAcACAAAAAAAAAFAAAAA"
)
"""As pyarrow writes that of a table of integers `plain`, and dictionaries `zip code` and `t`."""


def test_dictionaries_of_numbers_in_parquet_are_categories(tmp_path):
    rng = np.random.default_rng(0)
    codes = {"plain": rng.integers(0, 900, 80), "zip code": rng.integers(0, 900, 80)}
    frame = pl.DataFrame({**codes, "t": ["a", "b"] * 40, "label": [0, 1] * 40})
    frame.write_parquet(tmp_path / "t.parquet", metadata={"ARROW:schema": ARROW_SCHEMA})
    source = TableFiles([tmp_path / "t.parquet"])
    kinds = inferred(source, tmp_path / "parts")
    assert (kinds["plain"], kinds["zip code"]) == ("standard", "ignore")
    schema = pl.concat(source.read()).schema
    assert (schema["plain"], schema["zip code"]) == (pl.Int64, pl.Categorical)
