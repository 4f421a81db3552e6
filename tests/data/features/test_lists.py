"""Lists beside one-hot ids, sequences that are cut, and columns that share a table."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.column import Column, Cross, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Features
from dlrm.data.features.list import List
from dlrm.data.sources.table_files import TableFiles
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError

from .tables import assert_equal, csv, parquet, with_schema

WHOLE = {"split": "chronological", "fractions": (1.0, 0.0, 0.0)}
HASHED = Values(hash_rows=50)


def visits(rows: int = 50, seed: int = 0) -> pl.DataFrame:
    """Return rows with an item, a history of items, tags, and a number."""
    rng = np.random.default_rng(seed)
    items = [f"i{k}" for k in rng.zipf(1.5, rows) % 20]
    histories = [[f"i{k}" for k in rng.zipf(1.5, rng.integers(0, 9)) % 30] for _ in range(rows)]
    return pl.DataFrame(
        {
            "price": rng.normal(size=rows),
            "item": [None if rng.random() < 0.1 else item for item in items],
            "history": pl.Series(histories, dtype=pl.List(pl.String)),
            "tags": [rng.choice(list("abc"), rng.integers(1, 3)).tolist() for _ in range(rows)],
            "seller": rng.choice(["x", "y", "z"], rows),
            "label": rng.integers(0, 2, rows),
        }
    )


def shop(*columns: Column, crosses: tuple[Cross, ...] = ()) -> Columns:
    return Columns(labels=("label",), columns=columns, crosses=crosses)


ITEM = Column(name="item", kind="category")
HISTORY = Column(name="history", kind="sequence", max_length=3, table="item")
TAGS = Column(name="tags", kind="list")
SELLER = Column(name="seller", kind="category")
PRICE = Column(name="price", kind="number", buckets=3)
EVERYTHING = shop(PRICE, ITEM, HISTORY, TAGS, SELLER)


def lists_of(dataset: Dataset, name: str) -> list[list[int]]:
    """Return the ids of a list feature of all training rows."""
    lists = dataset.split("train").lists
    assert lists is not None
    features = [feature.name for feature in dataset.schema.list_features]
    ends = [lists.ids[a:b].tolist() for a, b in pairwise(lists.offsets.tolist())]
    return ends[features.index(name) :: len(features)]


def test_lists_stand_beside_one_hot_ids(tmp_path):
    made = with_schema(visits(), tmp_path / "out", EVERYTHING, **WHOLE)
    assert [(each.name, each.table, each.kind) for each in made.schema.features] == [
        ("price bucket", "price bucket", "one_hot"),
        ("item", "item", "one_hot"),
        ("history", "item", "sequence"),
        ("tags", "tags", "bag"),
        ("seller", "seller", "one_hot"),
    ]
    tables = [table.name for table in made.schema.tables]
    assert tables == ["price bucket", "item", "tags", "seller"]
    assert made.schema.feature("history").max_length == 3
    train = made.split("train")
    assert train.ids.shape == (50, 3)
    assert train.lists is not None
    assert len(train.lists.offsets) == 50 * 2 + 1
    kinds = {each["name"]: each["kind"] for each in made.manifest["features"]}
    assert (kinds["history"], kinds["tags"], kinds["item"]) == ("sequence", "bag", "one_hot")


@pytest.mark.parametrize("min_count", [1, 2, 4])
def test_a_shared_table_has_the_values_of_all_its_columns(tmp_path, min_count):
    frame, values = visits(), Values(min_count=min_count)
    schema = shop(replace(ITEM, values=values), replace(HISTORY, values=values), TAGS)
    made = with_schema(frame, tmp_path / "out", schema, **WHOLE)
    seen = [*frame["item"], *(item for history in frame["history"] for item in history)]
    counts = Counter(seen)
    kept = [item for item in counts if counts[item] >= min_count]
    features = Features.load(made.path)
    for name in ("item", "history"):
        known = features.vocabulary(name).frame
        assert known["value"].to_list() == kept
        assert known["count"].to_list() == [counts[item] for item in kept]
    ids = {item: kept.index(item) if item in kept else len(kept) for item in counts}
    assert made.split("train").ids[:, 0].tolist() == [ids[item] for item in frame["item"]]
    assert lists_of(made, "history") == [
        [ids[item] for item in history[-3:]] for history in frame["history"]
    ]
    assert made.schema.tables[0].num_embeddings == len(kept) + 1
    rare = sum(item not in kept for item in frame["item"])
    assert {each["name"]: each["rare"] for each in made.manifest["features"]}["item"] == rare
    assert len(list((made.path / "vocabulary").iterdir())) == 2


def test_any_columns_may_share_a_table_of_any_name(tmp_path):
    frame = visits().with_columns(other=pl.col("history").list.reverse())
    named = [
        replace(column, table="things", max_length=0)
        for column in (ITEM, HISTORY, replace(TAGS, name="other"))
    ]
    made = with_schema(frame, tmp_path / "out", shop(*named, SELLER), **WHOLE)
    assert [table.name for table in made.schema.tables] == ["things", "seller"]
    assert {each.table for each in made.schema.features[:3]} == {"things"}
    back = [ids[::-1] for ids in lists_of(made, "other")]
    assert back == lists_of(made, "history")
    hashed = [replace(column, values=HASHED) for column in named]
    made = with_schema(frame, tmp_path / "x" / "out", shop(*hashed), **WHOLE)
    assert [table.num_embeddings for table in made.schema.tables] == [50]
    assert [ids[::-1] for ids in lists_of(made, "other")] == lists_of(made, "history")


def test_what_stands_beside_a_category_that_shares_is_its_own(tmp_path):
    asked = Values(min_count=2, log_count=True, target_mean=True)
    plain = Values(min_count=2)
    alone = with_schema(visits(), tmp_path / "a" / "out", shop(replace(ITEM, values=asked)))
    shared = shop(replace(ITEM, values=asked), replace(HISTORY, values=plain))
    made = with_schema(visits(), tmp_path / "b" / "out", shared)
    names = ["item log count", "item target mean"]
    assert [each.name for each in made.schema.dense] == names
    for split in made.splits:
        mine, theirs = made.split(split), alone.split(split)
        np.testing.assert_array_equal(mine.dense, theirs.dense)
        np.testing.assert_array_equal(
            Features.load(made.path).encode(visits()).dense,
            Features.load(alone.path).encode(visits()).dense,
        )


def test_files_of_any_format_agree(tmp_path):
    frame = visits()
    made = with_schema(frame, tmp_path / "a" / "out", EVERYTHING)
    written = (
        csv(frame.with_columns(pl.col("history", "tags").list.join("|")), tmp_path / "t.csv"),
        parquet(frame, tmp_path / "t.parquet"),
    )
    for number, path in enumerate(written):
        files = TableFiles([path])
        assert_equal(made, with_schema(files, tmp_path / str(number) / "out", EVERYTHING))


histories = st.lists(
    st.none() | st.lists(st.sampled_from("abcd") | st.none(), max_size=6), min_size=1, max_size=12
)


@settings(deadline=None)
@given(histories, st.integers(0, 7))
def test_the_newest_values_are_kept(lists, longest):
    column = pl.Series("h", lists, pl.List(pl.String))
    settings_ = Column(name="h", kind="sequence", max_length=longest)
    fitted = List.fit(settings_, column)
    known = [[value for value in values or [] if value is not None] for values in lists]
    codes = list(dict.fromkeys(value for values in known for value in values))
    ids, lengths = fitted.encode(column.to_frame()).ids[0]
    expected = [values[-longest:] if longest else values for values in known]
    assert lengths.tolist() == [len(values) for values in expected]
    assert ids.tolist() == [codes.index(value) for values in expected for value in values]
    longer = sum(len(values) > longest for values in known) if longest else 0
    assert fitted.too_long(column) == longer


def test_what_is_cut_is_said_once(tmp_path, capfd):
    frame = visits()
    longer = sum(len(history) > 3 for history in frame["history"])
    made = with_schema(frame, tmp_path / "out", EVERYTHING)
    said = capfd.readouterr().err
    message = f"history: {longer} of 50 sequences are longer than 3; the newest 3 values are kept"
    assert said.count(message) == 1
    assert {each["name"]: each.get("cut") for each in made.manifest["features"]} == {
        "price": None,
        "price bucket": None,
        "item": None,
        "history": longer,
        "tags": None,
        "seller": None,
    }
    whole = shop(ITEM, replace(HISTORY, max_length=100))
    with_schema(frame, tmp_path / "x" / "out", whole)
    assert "longer" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            (ITEM, replace(HISTORY, values=HASHED)),
            "columns item and history share the table item, but hash_rows is 0 for item and 50 for "
            "history",
        ),
        (
            (ITEM, replace(HISTORY, values=Values(min_count=5))),
            "columns item and history share the table item, but min_count is 1 for item and 5",
        ),
        (
            (replace(ITEM, values=Values(embed=False, log_count=True)), HISTORY),
            "columns item and history share the table item, but embed is false for item and true",
        ),
        (
            (PRICE, replace(HISTORY, table="price")),
            "column history cannot share the table of price, which is a number",
        ),
        (
            (replace(PRICE, table="item"), ITEM),
            "column price is a number, and cannot share the table item",
        ),
    ],
)
def test_values_that_are_not_alike_share_no_table(columns, said):
    with pytest.raises(ConfigError) as raised:
        shop(*columns)
    assert said in str(raised.value)


def test_lengths_without_meaning():
    with pytest.raises(ConfigError, match="column tags: max_length is for sequences, not a list"):
        replace(TAGS, max_length=3)
    with pytest.raises(ConfigError, match="column history: max_length is -1, expected 0 or more"):
        replace(HISTORY, max_length=-1)
    with pytest.raises(ConfigError, match="column history: log_count, target_mean"):
        replace(HISTORY, values=Values(target_mean=True))


def test_a_table_may_be_called_as_something_else_is(tmp_path: Path):
    shared = [replace(column, table="price bucket") for column in (ITEM, HISTORY)]
    made = with_schema(visits(), tmp_path / "out", shop(PRICE, *shared), **WHOLE)
    assert [table.name for table in made.schema.tables] == ["price bucket", "price bucket (2)"]
    assert {each.table for each in made.schema.features[1:]} == {"price bucket (2)"}
    assert made.schema.num_embeddings[0] == 4
