"""Tables that are not what they should be: each is refused with its file, line and column."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.scoring import FileRows, encode_frame
from dlrm.data.sources.files import look
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DatasetError, DlrmError, InputError

from .tables import arrays, assert_equal, inferred, prepare

RNG = np.random.default_rng(0)
NUMBERS_FOUND = RNG.normal(size=99).tolist()
NUMBERS = [f"{x:.3f}" for x in RNG.normal(size=400)]


def rows(**columns: list[str]) -> str:
    """Return the text of a CSV file with a label, 0 and 1 in turn."""
    count = len(next(iter(columns.values())))
    columns["label"] = [str(k % 2) for k in range(count)]
    lines = [",".join(values) for values in zip(*columns.values(), strict=True)]
    return "\n".join([",".join(columns), *lines]) + "\n"


def refused(folder: Path, text: str | bytes, name: str = "t.csv", **settings) -> str:
    """Return why a file is refused, without the folder; nothing is left behind."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted(folder.iterdir())
    with pytest.raises(DlrmError) as raised:
        prepare(TableFiles([path]), folder / "out", **settings)
    assert sorted(folder.iterdir()) == before
    return str(raised.value).replace(f"{folder}/", "")


LABELS = {
    "absent": (
        rows(a=NUMBERS).replace("label", "y"),
        'no label column "label"; the columns are a, y',
    ),
    "constant": (rows(a=NUMBERS).replace(",1\n", ",0\n"), 'the label label is "0" in every row'),
    "three": (
        rows(a=NUMBERS[:6]).replace(",1\n", ",2\n", 1).replace(",1\n", ",7\n", 1),
        'the label label has 4 values ("0", "2", "7", "1"), expected two; say which is a click',
    ),
    "unclear": (
        rows(a=NUMBERS).replace(",1\n", ",cat\n").replace(",0\n", ",dog\n"),
        'the label label is "dog", "cat": say which means a click, e.g. --positive "dog"',
    ),
    "missing": (
        rows(a=NUMBERS).replace(",1\n", ",\n", 1),
        't.csv, line 3, column label: is missing, expected "0" or "1" in every row',
    ),
    "all missing": (
        rows(a=NUMBERS).replace(",1\n", ",\n").replace(",0\n", ",\n"),
        "the label label is missing in every row",
    ),
}


@pytest.mark.parametrize("which", LABELS)
def test_labels(tmp_path, which):
    text, said = LABELS[which]
    assert said in refused(tmp_path, text)


def test_what_a_click_is(tmp_path):
    path = tmp_path / "t.csv"
    stars = ["1", "2", "3", "4", "5"] * 40
    path.write_text(
        "stars,a\n" + "".join(f"{s},{x}\n" for s, x in zip(stars, NUMBERS[:200], strict=True))
    )
    settings = {"label": ("stars",), "split": "chronological"}
    made = prepare(TableFiles([path]), tmp_path / "a", positive=">= 4", **settings)
    assert made.split("train").labels[:5, 0].tolist() == [0, 0, 0, 1, 1]
    made = prepare(TableFiles([path]), tmp_path / "b", positive="3", **settings)
    assert made.split("train").labels[:5, 0].tolist() == [0, 0, 1, 0, 0]
    with pytest.raises(ConfigError, match='the label stars never is "9", its values are "1", "2"'):
        prepare(TableFiles([path]), tmp_path / "c", positive="9", **settings)
    with pytest.raises(ConfigError, match="is a click in every row"):
        prepare(TableFiles([path]), tmp_path / "c", positive="> 0", **settings)


@pytest.mark.parametrize("written", ["{:,}", "{}", "${:,}", "{} pcs"])
def test_a_bound_is_read_as_the_numbers_of_a_table(tmp_path, written):
    sold = [written.format(number) for number in (900, 1100, 2500, 1000, 10)] * 40
    frame = pl.DataFrame({"sold": sold, "a": NUMBERS[:200]})
    for number, bound in enumerate((">= 1,000", ">= 1000", f">={written.format(1000)}")):
        made = prepare(
            frame, tmp_path / str(number), label=("sold",), positive=bound, split="chronological"
        )
        assert made.split("train").labels[:5, 0].tolist() == [0, 1, 1, 1, 0], bound
    with pytest.raises(ConfigError, match='the label sold never is ">= many"'):
        prepare(frame, tmp_path / "c", label=("sold",), positive=">= many")


def test_a_value_may_look_like_a_comparison(tmp_path):
    text = rows(a=NUMBERS).replace(",1\n", ", >50\n").replace(",0\n", ", <=50\n")
    (tmp_path / "t.csv").write_text(text)
    made = prepare(
        TableFiles([tmp_path / "t.csv"]), tmp_path / "out", positive=">50", split="chronological"
    )
    assert made.split("train").labels[:4, 0].tolist() == [0, 1, 0, 1]


def test_many_labels_and_one_value_of_them(tmp_path):
    shown = [f"v{k % 1500}" for k in range(3000)]
    frame = pl.DataFrame({"label": shown, "a": RNG.normal(size=3000)})
    made = prepare(frame, tmp_path / "out", positive="v7")
    assert sum(made.split(name).labels.sum() for name in made.splits) == 2


def test_a_column_that_changes_its_type(tmp_path):
    changed = [*NUMBERS[:200], *["red", "blue"] * 100]
    said = refused(tmp_path, rows(a=changed))
    assert said.startswith(
        't.csv, line 202, column a: "red" is not a number, but all 200 values above it are'
    )
    said = refused(tmp_path, rows(a=[*NUMBERS[:300], "oops", *NUMBERS[301:]]))
    assert said.startswith(
        't.csv, line 302, column a: "oops" is not a number, but 99.8% of the values in this column '
        "are (1 is not)"
    )
    made = prepare(
        TableFiles([tmp_path / "t.csv"]), tmp_path / "out", bad_rows="skip", split="chronological"
    )
    assert made.manifest["bad_rows"]["total"] == 1
    assert made.manifest["bad_rows"]["reasons"] == {"a": 1}
    assert (
        'line 302, column a: is "oops", expected a number' in made.manifest["bad_rows"]["first"][0]
    )
    assert sum(len(made.split(name)) for name in made.splits) == 399


def test_texts_among_numbers_are_a_category(tmp_path):
    tickets = [f"A/{k % 30}" if k % 3 else str(1000 + k) for k in range(300)]
    assert inferred(pl.DataFrame({"ticket": tickets, "label": [0, 1] * 150}), tmp_path / "x") == {
        "ticket": "category"
    }


def test_lines_are_counted_through_quotes_and_blanks(tmp_path):
    text = 'a,b,label\n1.5,"x\ny",0\n\n2.5,z,1\n"3.5","\n\n",1\nfive,z,0\n'
    schema = tmp_path / "s.toml"
    schema.write_text('label = "label"\n[columns.a]\nkind = "number"\n')
    said = refused(tmp_path, text, schema=str(schema))
    assert said.startswith('t.csv, line 9, column a: is "five", expected a number')


@pytest.mark.parametrize("value", ["inf", "-inf", "1e400"])
def test_numbers_no_model_can_take(tmp_path, value):
    assert f'line 12, column a: "{value}" is not a number' in refused(
        tmp_path, rows(a=[*NUMBERS[:10], value, *NUMBERS[11:]])
    )
    frame = pl.DataFrame({"a": [*NUMBERS_FOUND, float("inf")], "label": [0, 1] * 50})
    with pytest.raises(InputError, match='the frame, row 100, column a: is "inf", expected a num'):
        prepare(frame, tmp_path / "frame")


def test_decimal_commas(tmp_path):
    text = rows(a=NUMBERS).replace(",", ";").replace(".", ",")
    (tmp_path / "commas.csv").write_text(text)
    made = prepare(TableFiles([tmp_path / "commas.csv"]), tmp_path / "out")
    (tmp_path / "points.csv").write_text(rows(a=NUMBERS))
    assert_equal(made, prepare(TableFiles([tmp_path / "points.csv"]), tmp_path / "points"))


def test_large_and_negative_numbers_are_numbers(tmp_path):
    whole = [str(int(x)) for x in RNG.integers(-(2**62), 2**62, 200)]
    huge = [f"{x}0000000000000000000000" for x in whole]
    table = pl.DataFrame({"whole": whole, "huge": huge, "label": [0, 1] * 100})
    made = prepare(table, tmp_path / "out", features=FeaturesConfig(buckets=4))
    for name, array in arrays(made).items():
        assert np.isfinite(array).all(), name
    assert {each["kind"] for each in made.manifest["columns"]} == {"number"}


def test_files_with_other_columns(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    paths[0].write_text("x,y,label\n1,2,0\n")
    paths[1].write_text("x,label\n1,0\n")
    with pytest.raises(
        InputError, match=r"b\.csv, column y: lacks this column, which .*a\.csv has"
    ):
        TableFiles(paths)
    with pytest.raises(InputError, match=r"b\.csv, column y: lacks this column"):
        TableFiles(paths[::-1])
    for path in paths:
        pl.read_csv(path).write_parquet(path)
    for order in (paths, paths[::-1]):
        with pytest.raises(InputError, match=r"column y: (lacks|has) this column, which"):
            prepare(TableFiles(order), tmp_path / "out")


def test_files_with_columns_in_another_order(tmp_path):
    (tmp_path / "a.csv").write_text(rows(a=NUMBERS[:50], b=NUMBERS[50:100]))
    text = pl.read_csv(tmp_path / "a.csv", infer_schema=False)
    text.select("label", "b", "a").write_csv(tmp_path / "b.csv")
    one, other = (tmp_path / name for name in ("a.csv", "b.csv"))
    mine = arrays(prepare(TableFiles([one, other]), tmp_path / "mine"))
    theirs = arrays(prepare(TableFiles([one, one]), tmp_path / "theirs"))
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_columns_that_say_nothing_are_ignored(tmp_path):
    frame = pl.DataFrame(
        {
            "none": pl.Series([None] * 40, dtype=pl.Int64),
            "blank": [""] * 40,
            "na": ["NA", "?"] * 20,
            "same": [3.5] * 40,
            "x": RNG.normal(size=40),
            "label": [0, 1] * 20,
        }
    )
    made = prepare(frame, tmp_path / "out")
    assert [(each["kind"], each["why"]) for each in made.manifest["columns"]][:4] == [
        ("ignore", "every value is missing"),
        ("ignore", "every value is missing"),
        ("ignore", 'every value is missing, as "?", "NA"'),
        ("ignore", "always 3.5"),
    ]
    with pytest.raises(ConfigError, match="the schema ignores every column"):
        prepare(frame.drop("x"), tmp_path / "nothing")
    with pytest.raises(ConfigError, match="the table has no column but the label label"):
        prepare(frame.select("label"), tmp_path / "nothing")


def test_very_many_values(tmp_path):
    n = 200_000
    frame = pl.DataFrame(
        {
            "real": RNG.normal(size=n),
            "whole": RNG.permutation(10 * n)[:n],
            "user_id": RNG.permutation(n) + 10**6,
            "code": [f"v{k}" for k in RNG.integers(0, 100_000, n)],
            "label": RNG.integers(0, 2, n),
        }
    )
    made = prepare(frame, tmp_path / "out")
    kinds = {each["name"]: each["kind"] for each in made.manifest["columns"]}
    assert kinds == {"real": "number", "whole": "number", "user_id": "ignore", "code": "category"}
    assert 10_000 < made.schema.tables[0].num_embeddings < 100_000


def archive(*names: str) -> bytes:
    """Return a zip file of empty files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name in names:
            zipped.writestr(name, "")
    return content.getvalue()


TEXTS = {
    "latin-1": (
        rows(a=[*["x"] * 20, "café", *["y"] * 20]).encode("latin-1"),
        "t.csv, line 22, column a: byte 0xe9 is not UTF-8 text; if the file is Latin-1",
    ),
    "latin-1 header": ("é,label\n1,0\n".encode("latin-1"), "t.csv, line 1: is not UTF-8 text"),
    "utf-16": (rows(a=NUMBERS).encode("utf-16"), "t.csv: is UTF-16, expected UTF-8: iconv"),
    "utf-16 without mark": (
        rows(a=NUMBERS).encode("utf-16-le"),
        "t.csv: is UTF-16LE, expected UTF-8",
    ),
    "utf-16 of big ends": (rows(a=NUMBERS).encode("utf-16-be"), "t.csv: is UTF-16BE"),
    "utf-32": (rows(a=NUMBERS).encode("utf-32"), "t.csv: is UTF-32, expected UTF-8: iconv"),
    "excel": (
        archive("[Content_Types].xml", "xl/workbook.xml"),
        "t.csv: is an Excel file, expected a text",
    ),
    "two in a zip": (archive("a.csv", "b.csv"), "t.csv: holds 2 files, expected one"),
    "zip": (b"PK\x03\x04" + b"\0" * 99, "t.csv, line 1: the zip file is damaged"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"\0" * 99, "t.csv, line 1: the Zstandard file is damaged"),
    "long line": (rows(a=NUMBERS[:9]) + "1,2,3\n", "t.csv, line 11: has 3 fields, expected 2"),
    "short line": (rows(a=NUMBERS[:9]) + "1\n", "t.csv, line 11: has 1 field, expected 2"),
    "twice": (
        "a,b,a,label\n1,2,3,0\n",
        "t.csv, line 1, column a: the header names this column twice",
    ),
    "empty": (b"", "t.csv: the file is empty"),
    "blank": (b"\n\n\n", "t.csv, line 1: is blank, expected the names of the columns"),
    "header only": ("a,label\n", "t.csv: the table has no rows"),
    "no header": (
        "0.5,x,1\n0.7,y,0\n",
        'there is no label column "label"; the columns are c0, c1, c2 (the file has no header',
    ),
    "quote": ('a,label\nx"y,0\nz,1\n', "t.csv, line 2: has a quote inside a text"),
    "open quote": (
        'a,label\nx,0\n"z,1\nu,1\n',
        "t.csv, line 3: is not CSV: unexpected end of data",
    ),
    "old Mac": (rows(a=NUMBERS).replace("\n", "\r"), "t.csv, line 1: its lines end in CR alone"),
    "not parquet": (b"PAR1" + b"\0" * 50, "t.csv: cannot be read as parquet"),
}


@pytest.mark.parametrize("which", TEXTS)
def test_texts(tmp_path, which):
    content, said = TEXTS[which]
    assert said in refused(tmp_path, content)


@pytest.mark.parametrize("cut", [20, 200, -4])
def test_truncated_gzip(tmp_path, cut):
    text = gzip.compress(rows(a=NUMBERS, b=NUMBERS[::-1]).encode())
    said = refused(tmp_path, text[:cut], "t.csv.gz")
    assert said.startswith("t.csv.gz, line ")
    assert "the gzip file is damaged or truncated" in said
    assert "is not a gzip file" in refused(tmp_path, b"a,label\n1,0\n", "u.csv.gz")
    assert "the file is empty" in refused(tmp_path, gzip.compress(b""), "v.csv.gz")


def test_a_parquet_file_damaged_in_its_middle(tmp_path):
    frame = pl.DataFrame({"a": NUMBERS * 20, "label": [0, 1] * 4000})
    frame.write_parquet(tmp_path / "t.parquet", compression="zstd")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[40:2000] = b"\xff" * 1960
    said = refused(tmp_path, bytes(content), "u.parquet")
    assert said.startswith("u.parquet: cannot be read as parquet: ")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv: there is no such file"):
        look(tmp_path / "no.csv")
    with pytest.raises(InputError, match="is a folder, expected a file"):
        look(tmp_path)


HEADERS = {
    "a,b\n1,2\n": ("a", "b"),
    "2019,2020,label\n5,6,1\n": ("2019", "2020", "label"),
    "0,1,2,3\n5.5,a,b,1\n": ("0", "1", "2", "3"),
    ",a,b\n0,5,6\n": ("column 1", "a", "b"),
    " a , b\n1,2\n": ("a", "b"),
    "\ufeffa,b\n1,2\n": ("a", "b"),
    'a,"b, c"\n1,2\n': ("a", "b, c"),
    "39, State-gov, 77516\n50, Private, 83311\n": ("c0", "c1", "c2"),
    "1,2,3\n4,5,6\n": ("c0", "c1", "c2"),
    "?,2,x\n4,5,y\n": ("c0", "c1", "c2"),
    "x,,y\na,b,c\n": ("c0", "c1", "c2"),
    "a;b,c\n1;2,5\n": ("a", "b,c"),
    "a\n1\n": ("a",),
}


@pytest.mark.parametrize("text", HEADERS)
def test_headers(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    names = HEADERS[text]
    if names == ("a", "b,c"):
        # A tie between separators goes to the comma.
        names = ("a;b", "c")
    assert look(path).names == names


def test_blank_lines_are_no_rows(tmp_path):
    text = rows(a=NUMBERS, b=NUMBERS[::-1])
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text(text.replace("\n", "\n\n", 7) + "\n\n")
    mine, theirs = (
        arrays(prepare(TableFiles([tmp_path / f"{name}.csv"]), tmp_path / name)) for name in "ab"
    )
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_nested_columns_are_named(tmp_path):
    frame = pl.DataFrame({"a": [{"b": 1}], "label": [0]})
    with pytest.raises(InputError, match=r"the frame, column a: holds Struct.*unnest it"):
        prepare(frame, tmp_path / "out")
    frame.write_parquet(tmp_path / "t.parquet")
    said = refused(tmp_path, (tmp_path / "t.parquet").read_bytes(), "u.parquet")
    assert said.startswith("u.parquet, column a: holds Struct")
    lists = pl.DataFrame({"a": [[[1]]], "label": [0]})
    with pytest.raises(InputError, match="column a: holds List"):
        prepare(lists, tmp_path / "out")
    label = pl.DataFrame({"a": [1, 2], "label": [[0], [1]]})
    with pytest.raises(ConfigError, match=r"the label label holds List\(Int64\)"):
        prepare(label, tmp_path / "out")


def test_frames_without_rows():
    with pytest.raises(InputError, match="the frame: has no rows"):
        FrameSource(pl.DataFrame({"a": [], "label": []}))


@pytest.fixture
def features(tmp_path) -> Features:
    frame = pl.DataFrame(
        {
            "n": RNG.normal(size=60),
            "c": ["x", "y", "z"] * 20,
            "when": pl.Series(RNG.integers(0, 9**9, 60)).cast(pl.Datetime("ms")),
            "label": [0, 1] * 30,
        }
    )
    return Features.load(prepare(frame, tmp_path / "fitted").path)


ROWS = "n,c,when\n1.5,x,2024-01-31\n{},y,{}\n"


def test_rows_to_score(tmp_path, features):
    path = tmp_path / "new.csv"

    def read(text: str, **settings):
        path.write_text(text)
        blocks = FileRows(features, [path], **settings).blocks()
        return [block.encoded for block in blocks if block.encoded is not None]

    (good,) = read(ROWS.format("", "NA"))
    assert np.isfinite(good.dense).all()
    with pytest.raises(
        InputError, match=r'new\.csv, line 3, column n: is "abc", expected a number'
    ):
        read(ROWS.format("abc", ""))
    with pytest.raises(InputError, match=r'line 3, column when: is "5", expected a time such as'):
        read(ROWS.format("2", "5"))
    with pytest.raises(
        InputError, match=r"new\.csv, column c: has no such column, which the model"
    ):
        read("n,when\n1,2024-01-31\n")
    (some,) = read(ROWS.format("abc", ""), bad_rows="skip")
    assert len(some.dense) == 1
    lists = pl.DataFrame({"n": [1.0], "c": [["x"]], "when": ["2024-01-31"]})
    with pytest.raises(InputError, match=r"column c: holds List\(String\), but single values"):
        encode_frame(features, lists)


def test_a_schema_that_does_not_fit(tmp_path):
    frame = pl.DataFrame({"a": ["x", "y"] * 20, "t": [["u"], ["v"]] * 20, "label": [0, 1] * 20})
    schema = tmp_path / "s.toml"

    def with_columns(text: str) -> Dataset:
        schema.write_text(f'label = "label"\n{text}')
        return prepare(frame, tmp_path / "out", schema=str(schema))

    with pytest.raises(
        ConfigError, match='there is no column of the schema "b"; the columns are a'
    ):
        with_columns('[columns.b]\nkind = "category"')
    with pytest.raises(ConfigError, match="column t holds lists, but is of kind category"):
        with_columns('[columns.t]\nkind = "category"')
    with pytest.raises(InputError, match='row 1, column a: is "x", expected a number'):
        with_columns('[columns.a]\nkind = "number"')
    with pytest.raises(ConfigError, match="the label is y, but label in the schema"):
        prepare(frame, tmp_path / "out", schema=str(schema), label=("y",))
    with pytest.raises(ConfigError, match="which column says whether it was a click"):
        prepare(frame, tmp_path / "out", label=())
    with pytest.raises(DatasetError, match="no row is left to train on"):
        prepare(frame, tmp_path / "out", fractions=(0.0, 0.5, 0.5))
