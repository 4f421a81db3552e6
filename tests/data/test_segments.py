from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from dlrm.data.describe import MISSING, RARE, by_column, users
from dlrm.data.features.features import Features
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.criteo import CATEGORIES, INTEGERS
from dlrm.data.store import Split
from dlrm.data.vocabulary import Vocabulary
from dlrm.errors import ConfigError
from dlrm.schema import DenseFeature, Feature, Schema, Table

from . import ragged
from .logs import Row, log, source


@dataclass(frozen=True)
class Fitted:
    """Features of a Criteo log, as far as they are asked what inputs mean."""

    vocabularies: dict[str, Vocabulary]

    @property
    def schema(self) -> Schema:
        """Features whose positions among ids are not those among all features."""
        names = list(self.vocabularies)
        return Schema(
            dense=tuple(DenseFeature(name=name) for name in INTEGERS),
            tables=tuple(
                Table(name=name, num_embeddings=self.vocabularies[name].num_embeddings)
                for name in names
            ),
            features=(
                Feature(name="tags", table="C1", kind="bag"),
                *(Feature(name=name, table=name) for name in names),
            ),
        )

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the values of a category."""
        return self.vocabularies[name]

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Undo log(x + 1)."""
        del name
        return np.expm1(values.astype(np.float64))


NOTHING = Vocabulary("C1", pl.DataFrame({"value": [], "count": []}))
Prepared = tuple[Split, Fitted, list[Row]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("segments")
    rows = log(400)
    config = PrepareConfig(split="chronological", fractions=(400, 0, 0), min_count=2)
    dataset = prepare(source(folder / "raw", rows), folder / "out", config).dataset
    known = Features.load(dataset.path)
    vocabularies = {name: known.vocabulary(name) for name in CATEGORIES}
    return dataset.split("train"), Fitted(vocabularies), rows


def test_a_category_is_told_by_the_values_of_the_log(prepared):
    split, features, rows = prepared
    segments = by_column(split, features, "C2", most=5)
    cells = [row[15] for row in rows]
    counts = Counter(cells)
    known = [
        RARE if counts[cell] < 2 else f"{int(cell, 16):08x}" if cell else MISSING for cell in cells
    ]
    largest = Counter(known).most_common(5)
    listed = Counter(segments.numbers.tolist())
    assert [listed[k] for k in range(5)] == [count for _, count in largest]
    assert segments.names[5] == f"other ({len(set(known)) - 5} values)"
    assert MISSING in segments.names
    for number, value in zip(segments.numbers, known, strict=True):
        name = segments.names[number]
        assert name == value or (number == 5 and value not in segments.names[:5])


def test_no_value_is_pooled_alone(prepared):
    split, features, _ = prepared
    many = by_column(split, features, "C2", most=10**6)
    size = len(many.names)
    assert by_column(split, features, "C2", most=size - 1).names == many.names
    assert by_column(split, features, "C2", most=size - 2).names[-1] == "other (2 values)"


def test_a_number_is_told_by_its_quantiles(prepared):
    split, features, rows = prepared
    segments = by_column(split, features, "I2", most=4)
    # Missing and negative numbers are 0.
    raw = np.array([max(0, int(row[2] or 0)) for row in rows])
    for number, name in enumerate(segments.names):
        mine = raw[segments.numbers == number]
        low, _, high = name.replace(",", "").partition(" to ")
        assert (mine.min(), mine.max()) == (int(low), int(high or low))
    assert len(segments.names) > 1
    # Equal numbers are never parted.
    assert len(set(zip(raw.tolist(), segments.numbers.tolist(), strict=True))) == len(set(raw))


def test_equal_parts_where_all_numbers_differ():
    rows = np.log1p(np.random.default_rng(0).permutation(1000)).astype(np.float32)
    labels = np.zeros((1000, 1), np.uint8)
    split = Split("test", rows[:, None], np.zeros((1000, 0), np.int32), labels)
    segments = by_column(split, Fitted({"C1": NOTHING}), "I1", most=8)  # pyright: ignore[reportArgumentType]
    assert np.bincount(segments.numbers).tolist() == [125] * 8
    assert segments.names[:2] == ("0 to 124", "125 to 249")


def test_who_is_no_user(prepared):
    split, features, rows = prepared
    segments = users(split, features, "C1")
    counts = Counter(row[14] for row in rows)
    for user, row in zip(segments, rows, strict=True):
        assert (user == -1) == (row[14] == "" or counts[row[14]] < 2)
    frame = pl.DataFrame({"user": segments, "value": [row[14] for row in rows]})
    known = frame.filter(pl.col("user") >= 0)
    assert known["user"].n_unique() == known["value"].n_unique() == known.n_unique()


def test_what_is_no_column(prepared):
    split, features, _ = prepared
    with pytest.raises(ConfigError, match=r'unknown column "C99"; choose one of: tags, C1, .* I13'):
        by_column(split, features, "C99")
    with pytest.raises(ConfigError, match='unknown column "nobody"'):
        users(split, features, "nobody")
    with pytest.raises(ConfigError, match='"I2" holds numbers'):
        users(split, features, "I2")
    with pytest.raises(ConfigError, match="segments is 0"):
        by_column(split, features, "C1", most=0)


@pytest.fixture
def mixed(tmp_path) -> tuple[Split, ragged.Named]:
    """Rows with lists beside one-hot ids."""
    dataset = ragged.write(tmp_path / "mixed", [("test", ragged.log(300), slice(0, 300))])
    return dataset.split("test"), ragged.Named(dataset.schema)


def test_a_column_of_one_id_each_beside_lists(mixed):
    split, features = mixed
    segments = by_column(split, features, "item", most=4)
    ids = split.ids[:, 1].tolist()
    assert segments.names == (*(f"item {i}" for i, _ in most_common(ids, 4)), "other (46 values)")
    for number, i in zip(segments.numbers, ids, strict=True):
        name = segments.names[number]
        assert name == f"item {i}" or (number == 4 and f"item {i}" not in segments.names)
    user = split.ids[:, 0].tolist()
    # The last row of a table is "other".
    assert users(split, features, "user").tolist() == [-1 if u == 29 else u for u in user]
    assert len(by_column(split, features, "price", most=3).names) == 3


def most_common(ids: list[int], count: int) -> list[tuple[int, int]]:
    """Return the most frequent ids and their counts, the lower id first where they are equal."""
    return sorted(Counter(ids).items(), key=lambda pair: (-pair[1], pair[0]))[:count]


def test_lists_make_no_segments(mixed):
    split, features = mixed
    with pytest.raises(ConfigError, match=r'"tags" holds lists .* of: user, item, price, age'):
        by_column(split, features, "tags")
    with pytest.raises(ConfigError, match=r'"history" holds lists .* one of: user, item$'):
        users(split, features, "history")
    with pytest.raises(ConfigError, match=r'unknown column "tag"; .*: user, tags, item, history'):
        by_column(split, features, "tag")
