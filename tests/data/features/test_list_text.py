"""Lists as Python, JSON and numpy write them."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.features.infer_texts import separator_of
from dlrm.data.features.list import LITERALS, are_lists, split_lists
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import InputError

from .tables import csv, prepare

ITEMS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).map(
    lambda text: text + "x"
)
WRITERS = [repr, json.dumps, lambda items: json.dumps(items, ensure_ascii=False)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ITEMS), min_size=1, max_size=5), st.sampled_from(WRITERS))
def test_any_list_of_texts_is_read(lists, write):
    texts = pl.Series([write(items) for items in lists])
    assert are_lists(texts)
    values, lengths = split_lists(texts, LITERALS)
    assert list(values) == [item for items in lists for item in items]
    assert lengths.tolist() == [len(items) for items in lists]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[1, 2.0, None]", ["1", "2"]),
        ("['it''s', \"it's\"]".replace("''", "\\'"), ["it's", "it's"]),
        ("(1, 2)", ["1", "2"]),
        ("{'a'}", ["a"]),
        ("[1 2 3]", ["1", "2", "3"]),
        ("['a' 'b c']", ["a", "b c"]),
        ("[np.int64(3), np.str_('u')]", ["3", "u"]),
        ("array([1, 2], dtype=int32)", ["1", "2"]),
        ("[Sci Fi, Drama]", ["Sci Fi", "Drama"]),
        ("[]", []),
        ("()", []),
        ("('a',)", ["a"]),
        ("set()", []),
        ("frozenset({'a:b', 'c'})", ["a:b", "c"]),
    ],
)
def test_other_ways_to_write_them(text, items):
    assert are_lists(pl.Series([text]))
    assert list(split_lists(pl.Series([text]), LITERALS)[0]) == items


@pytest.mark.parametrize(
    "text", ["a, b", "(unknown)", "{'a': 1, 'b': 2}", '{"a, b": 1}', "[{'a': 1}]", "x[1]", "12"]
)
def test_what_is_no_list(text):
    assert not are_lists(pl.Series([text]))


def test_a_column_of_them_is_lists(tmp_path):
    rng = np.random.default_rng(0)
    lists = [
        [f"t{k}" for k in rng.choice(20, rng.integers(1, 4), replace=False)] for _ in range(200)
    ]
    frame = pl.DataFrame({"tags": [repr(items) for items in lists], "label": [0, 1] * 100})
    made = prepare(frame, tmp_path / "out")
    typed = prepare(frame.with_columns(tags=pl.Series(lists)), tmp_path / "typed")
    assert set(Features.load(made.path).vocabulary("tags").frame["value"]) == {
        f"t{k}" for k in range(20)
    }
    few, all_rows = (encode_frame(Features.load(made.path), frame.head(n)).lists for n in (3, 200))
    expected = encode_frame(Features.load(typed.path), typed_frame(frame, lists)).lists
    assert few is not None
    assert all_rows is not None
    assert expected is not None
    np.testing.assert_array_equal(all_rows[0], expected[0])
    np.testing.assert_array_equal(few[0], expected[0][: len(few[0])])


def typed_frame(frame: pl.DataFrame, lists: list[list[str]]) -> pl.DataFrame:
    return frame.with_columns(tags=pl.Series(lists))


def test_embeddings_written_as_texts_are_no_lists(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 4)).tolist()
    frame = pl.DataFrame(
        {"v": [repr(v) for v in vectors], "x": np.arange(60) / 7, "label": [0, 1] * 30}
    )
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    assert schema.column("v").why == "lists of numbers with fractions"


def test_objects_are_taken_as_a_whole(tmp_path):
    objects = [json.dumps({"a": k % 7, "b": [k % 3]}) for k in range(60)]
    rows = {"o": objects, "x": np.arange(60) / 7, "label": [0, 1] * 30}
    schema = infer(FrameSource(pl.DataFrame(rows)).table(tmp_path, lambda _: None), ["label"])
    column = schema.column("o")
    assert (column.kind, column.why[:7]) == ("category", "objects")


GENRES = ["Action", "Drama", "Comedy", "War", "Horror", "Crime", "Romance"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(GENRES), min_size=1, max_size=3), min_size=30, max_size=60),
    st.sampled_from(["|", ";", ",", "/", "::", " ", ", ", " / "]),
    st.booleans(),
)
def test_lists_with_any_separator(lists, separator, ordered):
    rng = np.random.default_rng(0)
    # All pairs in both orders, so that there are enough to tell.
    lists = [*lists, *([one, other] for one in GENRES for other in GENRES if one != other)]
    orders = [sorted(items) if ordered else rng.permutation(list(items)) for items in lists]
    assert separator_of(pl.Series(map(separator.join, orders))) == separator.strip() or " "


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["src", "data", "web"]), min_size=1, max_size=2),
    st.sampled_from(["{}/{}/{}", "https://a.org/{}/{}{}", "/{}/{}{}", "{}::{}::{}", "./{}/{}{}"]),
)
def test_paths_and_addresses_are_no_lists(roots, form):
    names = ["main", "test", "util", "core", "ops"]
    paths = [form.format(r, one, other) for r in roots for one in names[:3] for other in names[3:]]
    assert separator_of(pl.Series(paths * 3)) is None


@pytest.mark.parametrize("form", ["{}/{}", "{0}/{1}/2024", "{1}/{0}"])
def test_dates_and_fractions_are_no_lists(form):
    texts = [form.format(one, other) for one in range(1, 13) for other in range(1, 29)]
    assert separator_of(pl.Series(texts)) is None


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["[1, 2", "['t1', 't2", "(3,", "abc", "1, 2]"]), st.integers(0, 39))
def test_a_broken_list_is_a_bad_row(tmp_path_factory, broken, row):
    folder = tmp_path_factory.mktemp("lists")
    lists = [f"['t{k % 5}', 't{k % 3}']" for k in range(40)]
    frame = pl.DataFrame({"tags": [*lists[:row], broken, *lists[row + 1 :]], "label": [0, 1] * 20})
    path = csv(frame, folder / "t.csv")
    with pytest.raises(InputError, match=rf"t.csv, line {row + 2}, column tags: is .*a list such"):
        prepare(TableFiles([path]), folder / "out")
    made = prepare(TableFiles([path]), folder / "out", bad_rows="skip")
    assert made.manifest["bad_rows"]["reasons"] == {"tags": 1}
    with pytest.raises(InputError, match="row 1, column tags"):
        encode_frame(Features.load(made.path), pl.DataFrame({"tags": [broken]}))
