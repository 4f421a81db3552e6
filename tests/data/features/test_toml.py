import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features import toml
from dlrm.data.features.column import SCALES, Column, Cross, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.errors import ConfigError, InputError

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
values = st.builds(
    Values,
    min_count=st.integers(1, 9),
    hash_rows=st.sampled_from([0, 2, 1000]),
    embed=st.booleans(),
    log_count=st.booleans(),
    target_mean=st.booleans(),
    folds=st.integers(2, 9),
    prior=st.floats(0.5, 1e9),
)


@st.composite
def schemas(draw) -> Columns:
    label, *rest = draw(st.lists(names, min_size=4, max_size=8, unique=True))
    why = st.text(max_size=8)
    made = []
    for position, name in enumerate(rest):
        kind = "category" if position < 3 else draw(st.sampled_from(["number", "list", "ignore"]))
        column = {"name": name, "kind": kind, "why": draw(why)}
        if kind == "number":
            column["scale"] = draw(st.sampled_from(SCALES))
            column["buckets"] = draw(st.sampled_from([0, 2, 50]))
            column["dense"] = draw(st.booleans()) or not column["buckets"]
            column["missing_flag"], column["time"] = draw(st.booleans()), draw(st.booleans())
        if kind == "list":
            column["separator"] = draw(names.filter(bool))
            column["values"] = Values(min_count=draw(st.integers(1, 9)))
        if kind == "category":
            column["values"] = draw(values)
        made.append(Column(**column))
    crosses = [Cross(columns=tuple(rest[:3]), values=draw(values), why=draw(why))]
    positive = draw(st.none() | names)
    return Columns(labels=(label,), positive=positive, columns=tuple(made), crosses=tuple(crosses))


@settings(deadline=None)
@given(schemas())
def test_any_schema_comes_back(tmp_path_factory, schema):
    text = toml.dumps(schema)
    assert toml.from_dict(tomllib.loads(text)) == schema
    file = tmp_path_factory.getbasetemp() / "schema.toml"
    file.write_bytes(text.encode())
    assert toml.load(file) == schema
    assert toml.from_dict(toml.to_dict(schema)) == schema


def test_letters_that_json_leaves_and_toml_does_not():
    odd = "\x7f\x80\u2028\x00\\\"'\n\t.[]#="
    schema = Columns(labels=(odd,), columns=(Column(name=odd[::-1], kind="category", why=odd),))
    assert toml.from_dict(toml.to_dict(schema)) == schema


GOOD = 'label = "y"\n[columns.a]\nkind = "category"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[columns.a]\nkind = 'number'", 'names no label, expected label = "COLUMN"'),
        ("label = 3", "names no label"),
        (GOOD + "min_cuont = 3", 'column a: unknown key "min_cuont"; choose one of: min_count'),
        (GOOD + "scale = 'log'", 'column a: unknown key "scale"'),
        (GOOD + "min_count = '3'", "column a: min_count is '3', expected a whole number"),
        (GOOD + "min_count = true", "column a: min_count is True, expected a whole number"),
        (GOOD + "min_count = 0", "column a: min_count is 0, expected 1 or more"),
        (GOOD + "embed = 1", "column a: embed is 1, expected true or false"),
        (GOOD + "prior = 'x'", "column a: prior is 'x', expected a number"),
        (GOOD + "[columns.b]\nkind = 'nubmer'", 'unknown kind of column b "nubmer"; choose one of'),
        (GOOD + "[columns.b]\nkind = ['a']", "column b: kind is ['a'], expected a text"),
        (GOOD + "[columns.b]\nscale = 'log'", "column b has no kind"),
        (GOOD + "[columns.b]\nkind = 'number'\nscale = 'cube'", 'scale of column b "cube"'),
        (GOOD + "[columns.b]\nkind = 'number'\nbuckets = 1", "column b: buckets is 1, expected 0"),
        (GOOD + "[columns.b]\nkind = 'number'\ndense = false", "column b has neither a number"),
        (GOOD + "[columns.b]\nkind = 'list'\nseparator = ''", "column b: separator is empty"),
        (
            GOOD + "[columns.b]\nkind = 'list'\ntarget_mean = true",
            "column b: log_count, target_mean",
        ),
        (GOOD + "[columns.y]\nkind = 'number'", "the schema has the column y twice"),
        (GOOD + "[[cross]]\ncolumns = ['a', 'b']", 'unknown column in a cross "b"'),
        (GOOD + "[[cross]]\ncolumns = ['a', 'a']", "a cross of a and a: expected two or three"),
        (GOOD + "[[cross]]\nmin_count = 2", "a [[cross]] names no columns"),
        (
            GOOD + "[[cross]]\ncolumns = ['a', 'b']\nmin_count = 0",
            "the cross a x b: min_count is 0",
        ),
        (
            GOOD + "[columns.n]\nkind = 'number'\n[[cross]]\ncolumns = ['a', 'n']",
            "n is of kind number",
        ),
        ("label = 'y'\n[columns.a]\nkind = 'ignore'", "the schema ignores every column"),
        ("label = 'y'\ncolumns = 3", "expected the columns as [columns.NAME]"),
        ("label = 'y'\nlabels = 'z'", 'unknown key "labels"'),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    file = tmp_path / "schema.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        toml.load(file)
    assert str(file) in str(raised.value)


def test_files_that_are_no_toml(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        toml.load(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("label = \n")
    with pytest.raises(InputError, match="is not TOML"):
        toml.load(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"label = '\xe9'")
    with pytest.raises(InputError, match="is not UTF-8"):
        toml.load(tmp_path / "b.toml")


def test_what_is_now_ignored_may_keep_its_settings():
    text = GOOD + "[columns.b]\nkind = 'ignore'\nscale = 'log'\nmissing_flag = true\nmin_count = 2"
    assert toml.from_dict(tomllib.loads(text)).column("b").kind == "ignore"
    with pytest.raises(ConfigError, match='column b: unknown key "scala"'):
        toml.from_dict(tomllib.loads(GOOD + "[columns.b]\nkind = 'ignore'\nscala = 'log'"))


def test_a_label_may_be_true_or_a_number():
    for said, positive in (("true", "true"), ("1", "1"), ('">= 4"', ">= 4")):
        read = toml.from_dict(tomllib.loads(f"positive = {said}\n{GOOD}"))
        assert read.positive == positive


def test_features_change_a_schema():
    schema = Columns(
        labels=("y",),
        columns=(
            Column(name="n", kind="number"),
            Column(name="a", kind="category"),
            Column(name="b", kind="category", values=Values(min_count=3)),
            Column(name="c", kind="category"),
            Column(name="l", kind="list"),
        ),
        crosses=(Cross(columns=("b", "a")),),
    )
    made = FeaturesConfig(
        numbers="log", buckets=4, min_count=2, target_means=True, crosses=("pairs", "a * n")
    ).apply(schema)
    assert made.column("n").scale == "log"
    assert made.column("n").buckets == 4
    assert [made.column(name).values.min_count for name in "abl"] == [2, 2, 2]
    assert made.column("a").values.target_mean
    assert not made.column("l").values.target_mean
    assert [cross.columns for cross in made.crosses] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "n"),
    ]
    assert FeaturesConfig().apply(schema) == schema
    with pytest.raises(ConfigError, match='unknown column in a cross "z"'):
        FeaturesConfig(crosses=("a*z",)).apply(schema)
    with pytest.raises(ConfigError, match=r'features\.crosses has "a", expected'):
        FeaturesConfig(crosses=("a",))
    with pytest.raises(ConfigError, match="column n has neither a number nor buckets"):
        FeaturesConfig(numbers="drop").apply(schema)


def test_the_example_in_the_head_is_valid():
    head = [
        line.removeprefix("# ")
        for line in toml.dumps(
            Columns(
                labels=("y",),
                columns=(Column(name="A", kind="category"), Column(name="B", kind="category")),
            )
        ).splitlines()
    ]
    start = next(k for k, line in enumerate(head) if "[[cross]]" in line)
    example = "\n".join(line.strip() for line in head[start : start + 2])
    text = 'label = "y"\n[columns.A]\nkind = "category"\n[columns.B]\nkind = "category"\n' + example
    assert toml.from_dict(tomllib.loads(text)).crosses[0].columns == ("A", "B")
