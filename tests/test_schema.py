"""Schemas: what they refuse, what they say, and how they survive JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches import history_schema, schemas
from dlrm.errors import ConfigError
from dlrm.schema import DenseFeature, Feature, Schema, Table

SCHEMA = history_schema(2, ("click", "buy"))


def test_one_hot_features_and_lists_are_in_their_order():
    assert SCHEMA.feature_names == ("history", "user", "words", "item", "word")
    assert [feature.name for feature in SCHEMA.one_hot_features] == ["user", "item", "word"]
    assert [feature.name for feature in SCHEMA.list_features] == ["history", "words"]
    assert SCHEMA.num_embeddings == (120, 300, 7, 120, 7)
    assert SCHEMA.num_labels == 2
    assert SCHEMA.feature("item").table == SCHEMA.feature("history").table == "items"
    assert [feature.is_list for feature in SCHEMA.features] == [True, False, True, False, False]


def test_the_simple_schema_has_a_table_for_each_feature():
    schema = Schema.one_hot(2, [5, 3])
    assert [feature.name for feature in schema.dense] == ["I1", "I2"]
    assert schema.tables == (
        Table(name="C1", num_embeddings=5),
        Table(name="C2", num_embeddings=3),
    )
    assert schema.features == (Feature(name="C1", table="C1"), Feature(name="C2", table="C2"))
    assert schema.labels == ("label",)
    lists = Schema.one_hot(0, [5, 3], ["a", "b"], kind="bag", labels=("x", "y"))
    assert lists.feature_names == ("a", "b")
    assert lists.list_features == lists.features
    assert lists.num_labels == 2
    with pytest.raises(ValueError, match="argument"):
        Schema.one_hot(0, [5, 3], ["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense": (DenseFeature(name="I1"),) * 2}, "the schema has the dense feature I1 twice"),
        ({"tables": (*SCHEMA.tables, SCHEMA.tables[0])}, "the schema has the table users twice"),
        (
            {"features": (*SCHEMA.features, Feature(name="user", table="items"))},
            "the schema has the categorical feature user twice",
        ),
        ({"labels": ("buy", "click", "buy")}, "the schema has the label buy twice"),
        (
            {"features": (Feature(name="age", table="ages"),)},
            'unknown table of the feature age "ages"; choose one of: items, users, words',
        ),
        (
            {"features": (Feature(name="age", table="items", kind="list"),)},  # pyright: ignore[reportArgumentType]
            'unknown kind of the feature age "list"; choose one of: one_hot, bag, sequence',
        ),
        ({"task": "ranking"}, 'unknown task "ranking"; choose one of: classification, regression'),
    ],
)
def test_what_has_no_meaning_is_refused(change, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        replace(SCHEMA, **change)


def test_a_table_may_have_the_name_of_a_feature_and_a_dense_one_that_of_a_categorical_one():
    Schema(
        dense=(DenseFeature(name="a"),),
        tables=(Table(name="a", num_embeddings=1),),
        features=(Feature(name="a", table="a"),),
    )


def test_an_unknown_feature_lists_the_choices():
    with pytest.raises(ConfigError, match=r'"age"; choose one of: history, user, words'):
        SCHEMA.feature("age")


@given(schema=schemas(st.lists(st.integers(1, 2**40), min_size=1, max_size=4), num_dense=2))
def test_a_schema_survives_json(schema):
    for whole in (schema, replace(schema, labels=("a", "b"), task="regression")):
        again = Schema.from_dict(json.loads(json.dumps(whole.to_dict())))
        assert again == whole
        assert whole.difference(again) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dense": ()}, "2 dense features against 0"),
        ({"labels": ("click",)}, "2 labels against 1"),
        ({"labels": ("click", "like")}, "buy against like"),
        ({"task": "regression"}, "classification against regression"),
        (
            {"tables": (*SCHEMA.tables, Table(name="more", num_embeddings=1))},
            "3 tables against 4",
        ),
        (
            {"features": SCHEMA.features[1:]},
            "5 categorical features against 4",
        ),
    ],
)
def test_the_difference_is_said(change, words):
    assert SCHEMA.difference(replace(SCHEMA, **change)) == words
    assert replace(SCHEMA, **change).difference(SCHEMA) is not None


def test_the_first_feature_that_differs_is_said():
    other = replace(
        SCHEMA, features=(*SCHEMA.features[:-1], Feature(name="word", table="words", kind="bag"))
    )
    difference = SCHEMA.difference(other)
    assert difference is not None
    assert "kind='one_hot'" in difference
    assert "kind='bag'" in difference
    larger = replace(SCHEMA, tables=(Table(name="users", num_embeddings=301), *SCHEMA.tables[1:]))
    assert "301" in (SCHEMA.difference(larger) or "")
