from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.category import Category
from dlrm.data.features.column import Column, Values
from dlrm.data.features.inputs import Parts, assemble
from dlrm.data.features.list import List
from dlrm.data.features.number import Number

rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(0, 1)),
    min_size=2,
    max_size=60,
)
LETTERS = st.text(alphabet="ab|\x1e\x1fme\x00 é", max_size=4).filter(lambda t: t == t.strip())


def fit(data, values: Values, seed: int = 0) -> tuple[Category, dict[str, np.ndarray]]:
    texts, clicks = zip(*data, strict=True)
    frame = pl.DataFrame({"x": pl.Series(texts, dtype=pl.String)})
    labels = np.array(clicks, np.uint8)
    return Category.fit(("x",), values, frame, labels, seed=seed)


def again_of(fitted: Category) -> Category:
    """Return what comes back of a category that is written and read."""
    return Category.from_dict(fitted.to_dict(fitted.tables()), fitted.tables())


def unscaled(fitted: Category, training: dict[str, np.ndarray], what: str) -> np.ndarray:
    scaling = fitted.scalings[what.replace(" ", "_")]
    assert scaling is not None
    return training[f"x {what}"] * scaling.deviation + scaling.center


@settings(deadline=None)
@given(rows, st.integers(0, 5), st.integers(2, 7), st.floats(0.5, 20))
def test_target_means_are_those_of_a_plain_loop(data, seed, folds, prior):
    values = Values(target_mean=True, target_score=True, folds=folds, prior=prior)
    fitted, training = fit(data, values, seed)
    found = unscaled(fitted, training, "target mean")
    scores = unscaled(fitted, training, "target score")
    fold = np.random.default_rng(seed).permutation(len(data)) % folds
    for row, (value, _) in enumerate(data):
        others = [data[k] for k in range(len(data)) if fold[k] != fold[row]]
        same = [click for other, click in others if other == value]
        rate = sum(click for _, click in others) / len(others) if others else 0.5
        rate = min(max(rate, 1e-6), 1 - 1e-6)
        mean = (sum(same) + prior * rate) / (len(same) + prior)
        assert found[row] == pytest.approx(np.log(mean / (1 - mean)), rel=1e-3, abs=1e-3)
        n, clicks = len(same), sum(same)
        score = (clicks - n * rate) / np.sqrt((n + 1) * rate * (1 - rate))
        assert scores[row] == pytest.approx(
            score, rel=1e-3, abs=1e-3 * (1 + float(np.abs(scores).max()))
        )


@settings(deadline=None)
@given(rows, st.data())
def test_a_row_does_not_see_its_own_label(data, draw):
    row = draw.draw(st.integers(0, len(data) - 1))
    flipped = [*data]
    flipped[row] = (data[row][0], 1 - data[row][1])
    values = Values(target_mean=True, target_score=True, log_count=True)
    for what in ("target mean", "target score", "log count"):
        before = unscaled(*fit(data, values), what)[row]
        after = unscaled(*fit(flipped, values), what)[row]
        assert before == pytest.approx(after, rel=1e-4, abs=1e-4)


@settings(deadline=None)
@given(rows)
def test_log_counts_leave_the_row_itself_out(data):
    fitted, training = fit(data, Values(log_count=True))
    counts = Counter(value for value, _ in data)
    expected = [np.log(counts[value]) for value, _ in data]
    np.testing.assert_allclose(unscaled(fitted, training, "log count"), expected, atol=1e-5)
    new = fitted.encode(pl.DataFrame({"x": ["a", "zz"]})).dense[0]
    scaling = fitted.scalings["log_count"]
    raw = new * scaling.deviation + scaling.center
    np.testing.assert_allclose(raw, np.log1p([counts["a"], 0]), atol=1e-5)


@settings(deadline=None)
@given(rows, st.integers(1, 4))
def test_ids_follow_the_training_rows(data, least):
    fitted, _ = fit(data, Values(min_count=least))
    counts = Counter(value for value, _ in data)
    kept = [value for value in dict.fromkeys(v for v, _ in data) if counts[value] >= least]
    probe = ["a", "b", "c", "d", None, "unseen"]
    found = fitted.encode(pl.DataFrame({"x": probe})).ids[0]
    other = len(kept)
    assert found.tolist() == [kept.index(v) if v in kept else other for v in probe]  # type: ignore[union-attr]
    assert fitted.num_embeddings == len(kept) + 1
    assert fitted.vocabulary().frame["value"].to_list() == kept
    again = again_of(fitted)
    assert again.encode(pl.DataFrame({"x": probe})).ids[0].tolist() == found.tolist()  # type: ignore[union-attr]


def test_rare_values_keep_their_counts_and_means():
    data = [("a", 1)] * 5 + [("b", 0)] * 5 + [("c", 1)]
    fitted, _ = fit(data, Values(min_count=2, target_mean=True, log_count=True))
    again = again_of(fitted)
    for each in (fitted, again):
        parts = each.encode(pl.DataFrame({"x": ["a", "b", "c", "unseen"]}))
        assert parts.ids[0].tolist() == [0, 1, 2, 2]  # type: ignore[union-attr]
        _, means = parts.dense
        assert means[0] > means[2] > means[3] > means[1]


def test_hashing_is_the_same_everywhere():
    fitted, _ = fit([("a", 0), ("b", 1)], Values(hash_rows=1000))
    found = fitted.encode(pl.DataFrame({"x": ["a", "b", "Zürich", None, "unseen"]})).ids[0]
    assert found.tolist() == [907, 681, 798, 421, 17]  # type: ignore[union-attr]
    assert fitted.num_embeddings == 1000


def crossed(first: list, second: list) -> list[int]:
    frame = pl.DataFrame(
        {"a": pl.Series(first, dtype=pl.String), "b": pl.Series(second, dtype=pl.String)}
    )
    clicks = np.arange(len(first), dtype=np.uint8) % 2
    fitted, _ = Category.fit(("a", "b"), Values(), frame, clicks, seed=0)
    return fitted.encode(frame).ids[0].tolist()  # type: ignore[union-attr]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | LETTERS, st.none() | LETTERS), min_size=1, max_size=20))
def test_crosses_are_pairs(pairs):
    known = [tuple(value or None for value in pair) for pair in pairs]
    codes = list(dict.fromkeys(known))
    found = crossed([a for a, _ in known], [b for _, b in known])
    assert found == [codes.index(pair) for pair in known]


def test_what_stands_between_the_values_of_a_cross_may_be_in_them():
    assert crossed(["a\x1fb", "a", "a\x1e", "a"], ["c", "b\x1fc", "c", "\x1ec"]) == [0, 1, 2, 3]
    assert crossed([None, "\x1em", "\x1eem"], ["c", "c", "c"]) == [0, 1, 2]


def test_crosses_of_buckets():
    numbers = pl.Series("n", [1.0, 2.0, 3.0, None])
    number = Number.fit(Column(name="n", kind="number", buckets=2), numbers)
    frame = pl.DataFrame({"n": numbers, "c": ["x", "x", "x", "x"]})
    fitted, _ = Category.fit(
        ("c", "n"), Values(), frame, np.array([0, 1, 0, 1], np.uint8), seed=0, buckets=(number,)
    )
    assert fitted.encode(frame).ids[0].tolist() == [0, 1, 1, 2]  # type: ignore[union-attr]
    assert fitted.vocabulary().frame["value"].to_list() == ["x x 0", "x x 1", "x x 2"]
    again = again_of(fitted)
    assert again.buckets == fitted.buckets


bags = st.lists(st.none() | st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=15)


@settings(deadline=None)
@given(bags, st.integers(1, 3))
def test_lists_are_bags(lists, least):
    column = pl.Series("t", lists, pl.List(pl.String))
    counts = Counter(token for bag in lists for token in bag or [])
    seen = dict.fromkeys(token for bag in lists for token in bag or [])
    kept = [token for token in seen if counts[token] >= least]
    expected = [[kept.index(t) if t in kept else len(kept) for t in bag or []] for bag in lists]
    texts = pl.Series("t", [None if bag is None else "; ".join(bag) for bag in lists], pl.String)
    for each, separator in ((column, "|"), (texts, ";")):
        settings = Column(
            name="t", kind="list", separator=separator, values=Values(min_count=least)
        )
        fitted = List.fit(settings, each)
        ids, lengths = fitted.encode(each.to_frame()).ids[0]
        assert lengths.tolist() == [len(bag) for bag in expected]
        assert ids.tolist() == [i for bag in expected for i in bag]
        again = List.from_dict(fitted.to_dict(fitted.tables()), fitted.tables())
        assert again.encode(each.to_frame()).ids[0][0].tolist() == ids.tolist()
    hashed = List.fit(Column(name="t", kind="list", values=Values(hash_rows=7)), column)
    assert all(0 <= i < 7 for i in hashed.encode(column.to_frame()).ids[0][0])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.lists(st.integers(0, 9), max_size=3),
            st.lists(st.integers(0, 9), max_size=2),
            st.integers(0, 9),
        ),
        max_size=8,
    )
)
def test_bags_and_ids_are_put_together_row_by_row(samples):
    one = np.array([sample[0] for sample in samples], np.int32)
    lists = [[sample[at] for sample in samples] for at in (1, 2)]
    flat = [np.array([i for ids in column for i in ids], np.int32) for column in lists]
    lengths = [np.array([len(ids) for ids in column], np.int64) for column in lists]
    last = np.array([sample[3] for sample in samples], np.int32)
    parts = [
        Parts(ids=[one]),
        Parts(ids=[(flat[0], lengths[0])]),
        Parts(ids=[last], dense=[last.astype(np.float32)]),
        Parts(ids=[(flat[1], lengths[1])]),
    ]
    made = assemble(parts, len(samples))
    assert made.ids.tolist() == [[sample[0], sample[3]] for sample in samples]
    assert made.dense[:, 0].tolist() == [sample[3] for sample in samples]
    assert made.lists is not None
    ids, offsets = made.lists
    assert ids.tolist() == [i for sample in samples for i in [*sample[1], *sample[2]]]
    ends = [len(ids) for sample in samples for ids in (sample[1], sample[2])]
    assert offsets.tolist() == [0, *np.cumsum(ends).tolist()]
    assert assemble(parts[:1], len(samples)).lists is None
