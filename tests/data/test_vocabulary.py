from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data.vocabulary import Vocabulary, distinct, fold
from dlrm.errors import ConfigError

fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.usefixtures("both")

numbers = st.lists(st.none() | st.integers(0, 6), max_size=60).map(
    lambda x: pl.Series(x, dtype=pl.UInt32)
)
texts = st.lists(st.none() | st.sampled_from(["", "a", "b", "ü"]), max_size=60).map(
    lambda x: pl.Series(x, dtype=pl.String)
)


@fuzz
@given(numbers | texts)
def test_distinct_is_a_dictionary(values):
    groups, codes = distinct(values)
    counts = Counter(values.to_list())
    assert dict(groups.iter_rows()) == counts
    assert groups["value"].to_list() == list(counts)
    assert [groups["value"][int(code)] for code in codes] == values.to_list()


@fuzz
@given(numbers | texts, st.sampled_from(["appearance", "frequency"]), st.integers(1, 5))
def test_ids_of_known_values_and_other_for_the_rest(values, order, min_count):
    parts = pl.DataFrame({"value": values, "count": pl.Series([1] * len(values), dtype=pl.Int64)})
    vocabulary = Vocabulary.build("x", parts, order, min_count)
    counts = Counter(values.to_list())
    known = [value for value in counts if counts[value] >= min_count]
    if order == "frequency":
        known.sort(key=lambda value: -counts[value])
    assert vocabulary.frame["value"].to_list() == known
    assert vocabulary.frame["count"].to_list() == [counts[value] for value in known]
    assert vocabulary.num_embeddings == len(known) + 1
    expected = [known.index(v) if v in known else len(known) for v in values.to_list()]
    assert vocabulary.ids(values).tolist() == expected


@fuzz
@given(numbers, st.integers(1, 10))
def test_fold_is_the_remainder_with_missing_as_zero(values, rows):
    assert fold(values, rows).to_list() == [(value or 0) % rows for value in values]
    assert fold(values, None) is values


@fuzz
@given(texts, st.integers(1, 10))
def test_fold_of_texts_is_stable(values, rows):
    folded = fold(values, rows)
    assert folded.is_between(0, rows - 1).all()
    assert dict(zip(values, folded, strict=True)).get("a", 0xE8B7BE43 % rows) == 0xE8B7BE43 % rows


def test_fold_of_narrow_types_takes_any_divisor():
    values = pl.Series([None, -1, 5, 100], dtype=pl.Int8)
    assert fold(values, 40_000_000).to_list() == [0, 39_999_999, 5, 100]


def test_values_are_told_as_the_raw_data_write_them():
    hexadecimal = pl.Series([None, 10, 2**32 - 1], dtype=pl.UInt32)
    for values, expected in (
        (hexadecimal, [None, "0000000a", "ffffffff"]),
        (fold(hexadecimal, 7), ["0", "3", "3"]),
        (pl.Series(["", None, "a"]), ["", None, "a"]),
    ):
        frame = pl.DataFrame({"value": values, "count": [1, 1, 1]})
        assert [Vocabulary("x", frame).text(id) for id in range(3)] == expected


def test_an_unknown_order_lists_the_choices():
    with pytest.raises(ConfigError, match="appearance, frequency"):
        Vocabulary.build("x", pl.DataFrame({"value": [1], "count": [1]}), "size")  # pyright: ignore
