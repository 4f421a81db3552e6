from collections import Counter

import numpy as np
import polars as pl
import pytest

from dlrm.data.bags import Bags
from dlrm.data.criteo import CriteoSource
from dlrm.data.encoder import Encoder
from dlrm.data.prepare import prepare
from dlrm.data.segments import MISSING, RARE, by_column, users
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError

from . import ragged
from .logs import Row, log, write


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Dataset, list[Row]]:
    folder = tmp_path_factory.mktemp("segments")
    rows = log(400)
    source = CriteoSource([write(folder / "raw", rows)])
    out = folder / "out"
    made = prepare(source, out, split="chronological", fractions=(1, 0, 0), min_count=2)
    return made.dataset, rows


def test_a_category_is_told_by_the_values_of_the_log(prepared):
    dataset, rows = prepared
    split, encoder = dataset.split("train"), Encoder.load(dataset.path)
    found = by_column(split, encoder, "C2", most=5)
    cells = [row[15] for row in rows]
    counts = Counter(cells)
    known = [
        RARE if counts[cell] < 2 else f"{int(cell, 16):08x}" if cell else MISSING for cell in cells
    ]
    largest = Counter(known).most_common(5)
    listed = Counter(found.numbers.tolist())
    assert [listed[k] for k in range(5)] == [count for _, count in largest]
    assert found.names[5] == f"other ({len(set(known)) - 5} values)"
    assert MISSING in found.names
    for number, value in zip(found.numbers, known, strict=True):
        name = found.names[number]
        assert name == value or (number == 5 and value not in found.names[:5])


def test_no_value_is_pooled_alone(prepared):
    dataset, _ = prepared
    split, encoder = dataset.split("train"), Encoder.load(dataset.path)
    many = by_column(split, encoder, "C2", most=10**6)
    size = len(many.names)
    assert by_column(split, encoder, "C2", most=size - 1).names == many.names
    assert by_column(split, encoder, "C2", most=size - 2).names[-1] == "other (2 values)"


def test_a_number_is_told_by_its_quantiles(prepared):
    dataset, rows = prepared
    split, encoder = dataset.split("train"), Encoder.load(dataset.path)
    found = by_column(split, encoder, "I2", most=4)
    # Missing and negative numbers are 0.
    raw = np.array([max(0, int(row[2] or 0)) for row in rows])
    for number, name in enumerate(found.names):
        mine = raw[found.numbers == number]
        low, _, high = name.replace(",", "").partition(" to ")
        assert (mine.min(), mine.max()) == (int(low), int(high or low))
    assert len(found.names) > 1
    # Equal numbers are never parted.
    assert len(set(zip(raw.tolist(), found.numbers.tolist(), strict=True))) == len(set(raw))


def test_equal_parts_where_all_numbers_differ():
    rows = np.log1p(np.random.default_rng(0).permutation(1000)).astype(np.float32)
    split = Split("test", rows[:, None], np.zeros((1000, 0), np.int32), np.zeros(1000, np.uint8))
    encoder = Encoder("criteo", ("I1",), (), "label", (), None, folder=None)  # pyright: ignore[reportArgumentType]
    found = by_column(split, encoder, "I1", most=8)
    assert np.bincount(found.numbers).tolist() == [125] * 8
    assert found.names[:2] == ("0 to 124", "125 to 249")


def test_who_is_no_user(prepared):
    dataset, rows = prepared
    split, encoder = dataset.split("train"), Encoder.load(dataset.path)
    found = users(split, encoder, "C1")
    counts = Counter(row[14] for row in rows)
    for user, row in zip(found, rows, strict=True):
        assert (user == -1) == (row[14] == "" or counts[row[14]] < 2)
    frame = pl.DataFrame({"user": found, "value": [row[14] for row in rows]})
    known = frame.filter(pl.col("user") >= 0)
    assert known["user"].n_unique() == known["value"].n_unique() == known.n_unique()


def test_what_is_no_column(prepared):
    dataset, _ = prepared
    split, encoder = dataset.split("train"), Encoder.load(dataset.path)
    with pytest.raises(ConfigError, match=r'unknown column "C99"; choose one of: C1, .* I13'):
        by_column(split, encoder, "C99")
    with pytest.raises(ConfigError, match='unknown column "nobody"'):
        users(split, encoder, "nobody")
    with pytest.raises(ConfigError, match='"I2" holds numbers'):
        users(split, encoder, "I2")
    with pytest.raises(ConfigError, match="segments is 0"):
        by_column(split, encoder, "C1", most=0)


@pytest.fixture
def bagged(tmp_path) -> tuple[Split, Encoder]:
    """Rows with bags, and their encoder: ids are the lengths of texts such as `user xxx`."""
    block = ragged.log(300)
    dataset = ragged.write(tmp_path / "bags", [("test", block, slice(0, 300))])
    return dataset.split("test"), ragged.encoder(dataset)


def test_a_column_of_one_id_each_beside_bags(bagged):
    split, encoder = bagged
    found = by_column(split, encoder, "item", most=4)
    ids = [bags[2][0] for bags in ragged.unpacked(Bags(split.ids, split.offsets), 3)]
    assert found.names == (*(f"item {i}" for i, _ in most_common(ids, 4)), "other (46 values)")
    for number, i in zip(found.numbers, ids, strict=True):
        name = found.names[number]
        assert name == f"item {i}" or (number == 4 and f"item {i}" not in found.names)
    user = [bags[0][0] for bags in ragged.unpacked(Bags(split.ids, split.offsets), 3)]
    # The last row of a table is "other".
    assert users(split, encoder, "user").tolist() == [-1 if u == 29 else u for u in user]
    assert len(by_column(split, encoder, "price", most=3).names) == 3


def most_common(ids: list[int], count: int) -> list[tuple[int, int]]:
    """Return the most frequent ids and their counts, the lower id first where they are equal."""
    return sorted(Counter(ids).items(), key=lambda each: (-each[1], each[0]))[:count]


def test_bags_make_no_segments(bagged):
    split, encoder = bagged
    with pytest.raises(ConfigError, match=r'"tags" holds bags .* of: user, item, price, age'):
        by_column(split, encoder, "tags")
    with pytest.raises(ConfigError, match=r'"tags" holds bags .* one of: user, item$'):
        users(split, encoder, "tags")
    with pytest.raises(ConfigError, match=r'unknown column "tag"; .*: user, tags, item, price'):
        by_column(split, encoder, "tag")
