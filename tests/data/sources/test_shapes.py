"""Texts of any shape are the table that they hold: recognised, or as the user says."""

import bz2
import gzip
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlrm.data.sources.files import look
from dlrm.data.sources.reading import SPACES, Reading, Shape
from dlrm.data.sources.records import Fault, Text
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import ConfigError, InputError

ROWS = [["0", "Rome", "4.7"], ["1", "Oslo", "2.5"], ["1", "Nice", "3.25"], ["0", "Rome", "8"]] * 3
NAMES = ["y", "city", "size"]


def read(text: str | bytes, folder: Path, name: str = "t.csv", **settings) -> pl.DataFrame:
    """Return the rows of a text, as texts."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    settings = {"columns": ("y",), **settings}
    with TemporaryDirectory() as parts:
        table = TableFiles([path], **settings).table(Path(parts), lambda _: None)
        return pl.concat(table.blocks(list(table.types)))


def text(rows: list[list[str]], separator: str = ",", end: str = "\n", tail: str = "") -> str:
    return "".join(separator.join(row) + tail + end for row in rows)


PLAIN = text([NAMES, *ROWS])
SHAPES = {
    "plain": PLAIN,
    "title": "Campaign report 2024\n" + PLAIN,
    "titles and blanks": "Report, 2024\n\nby city\n\n" + PLAIN,
    "sep": "sep=;\n" + text([NAMES, *ROWS], ";"),
    "quoted sep, CRLF, BOM": '\ufeff"sep=;"\r\n' + text([NAMES, *ROWS], ";", "\r\n"),
    "psql": text([[" y ", " city ", " size"], ["---", "------", "-----"], *ROWS], "|").replace(
        "|------|", "+------+"
    )
    + "(12 rows)\n\n",
    "mysql": "+---+------+------+\n"
    + text([["", " y ", " city ", " size ", ""]], "|")
    + "+---+------+------+\n"
    + text([["", *row, ""] for row in ROWS], " | ")
    + "+---+------+------+\n12 rows in set (0.01 sec)\n",
    "markdown": text([["", *row, ""] for row in (NAMES, ["--:", ":---", "---"], *ROWS)], " | "),
    "quotes and bars": text(
        [["y", "city", '"size"'], ["---"] * 3, *([y, f'"{c}"', s] for y, c, s in ROWS)], "|"
    ),
    "arff": "% shops\n@RELATION shops\n\n@attribute y {0,1}\n@ATTRIBUTE 'city' string\n"
    "@attribute size numeric\n@data\n" + text([[y, f"'{city}'", size] for y, city, size in ROWS]),
    "comments": "# exported, from a shop\n#\n" + PLAIN,
    "trailing": text([NAMES, *ROWS], ";", tail=";"),
    "trailing in rows": text([NAMES]) + text(ROWS, tail=","),
    "trailing in the header": text([NAMES], tail=",") + text(ROWS),
    "colons": text([NAMES, *ROWS], "::"),
    "control-A": text([NAMES, *ROWS], "\x01"),
    "spaces": text([NAMES, *ROWS], "   "),
    "mixed blanks": text([[f" {name}" for name in NAMES]], "\t") + text(ROWS, "  "),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "strokes in a title": "a|b\n" + PLAIN,
    "titles as wide as the table": "Report,,\n,,\nfrom,2024,to\n" + PLAIN,
    "header in a comment": "# exported\n#" + PLAIN,
    "a title with a quote": '"Report\n' + PLAIN,
    "carets": text([NAMES, *ROWS], "^"),
}


@pytest.mark.parametrize("which", SHAPES)
def test_recognised(tmp_path, which, capsys):
    expected = pl.DataFrame(ROWS, NAMES, orient="row")
    assert read(SHAPES[which], tmp_path).equals(expected)
    assert ("t.csv: " in capsys.readouterr().err) == (
        which not in ("plain", "blank lines", "control-A", "trailing in the header")
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("0123456789.x", max_size=6), min_size=1, max_size=30))
def test_a_table_of_one_column(values):
    """A column alone has no separators to count, and a blank line is a missing value of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("\n".join(["y", *values]) + "\n")
        table = TableFiles([path], columns=("y",), reading=Reading(header="yes"))
        rows = table.table(Path(folder), lambda _: None)
        (frame,) = rows.blocks(["y"])
        assert frame["y"].fill_null("").to_list() == values


def test_row_names(tmp_path):
    named = [[f'"r {place}"', *row] for place, row in enumerate(ROWS)]
    expected = pl.DataFrame(named, ["column 1", *NAMES], orient="row")
    expected = expected.with_columns(pl.col("column 1").str.strip_chars('"'))
    for separator in (",", " ", "\t"):
        with TemporaryDirectory(dir=tmp_path) as folder:
            found = read(text([NAMES, *named], separator), Path(folder))
        assert found.equals(expected), separator


def test_an_index_of_several_levels(tmp_path):
    rows = [["0", str(place), *row] for place, row in enumerate(ROWS)]
    found = read(text([["", "", *NAMES], *rows]), tmp_path)
    assert found.columns == ["column 1", "column 2", *NAMES]


def test_columns_of_several_levels(tmp_path):
    rows = [[str(place), *row] for place, row in enumerate(ROWS)]
    found = read(text([["", "a", "a", "b"], ["", *NAMES], ["row", "", "", ""], *rows]), tmp_path)
    assert found.columns == ["row", *NAMES]
    assert found.rows() == [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("5,x\n" + text(ROWS), "line 1: has 2 fields, expected 3"),
        (PLAIN + '1,"x,3\n' + text(ROWS), "line 14: is not CSV: unexpected end of data"),
        ('"y,a\n1,2\n', "line 1: is not CSV"),
        ("y,a,a\n" + text(ROWS), "line 1, column a: the header names this column twice"),
    ],
)
def test_what_is_no_shape_is_an_error(tmp_path, body, problem):
    with pytest.raises(InputError, match=rf"t\.csv, {problem}"):
        read(body, tmp_path)


def test_the_label_makes_a_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("y,city,1\nno,Rome,q\nyes,Oslo,r\n")
    assert look(path, columns=("y",)).names == ("y", "city", "1")
    assert look(path).names == ("c0", "c1", "c2")
    assert look(path, Reading(header="yes")).names == ("y", "city", "1")
    path.write_text("a,b\nc,d\n")
    assert look(path, Reading(header="no")).names == ("c0", "c1")


def test_said(tmp_path):
    said = Reading(separator="^", skip_lines=2, comment="--")
    odd = "title\nanother ^ title\n-- why\n" + text([NAMES, *ROWS], "^").replace("\n", "\n-- x\n")
    assert read(odd, tmp_path, reading=said).rows() == [tuple(row) for row in ROWS]
    assert Reading(separator="tab").separator == "\t"
    assert Reading(separator=" ").separator == SPACES
    assert Reading(separator=";").over(Reading(comment="%", separator=",")) == Reading(
        separator=";", comment="%"
    )
    wrongs: list[dict[str, Any]] = [
        {"separator": ""},
        {"skip_lines": -1},
        {"comment": " "},
        {"header": "maybe"},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            Reading(**wrong)


def test_texts_with_blanks_are_no_table_of_blanks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("city\nNew York\nSan Diego\nLos Angeles\n")
    assert look(path, columns=("city",)).names == ("city",)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters='\0\r"'), max_size=6).map(str.strip)


@settings(deadline=None, max_examples=20)
@given(
    cells=st.lists(st.tuples(CELLS, CELLS), min_size=3, max_size=8),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    title=st.sampled_from(["", "A report\n", "# note\n", "\n\n"]),
    trailing=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    blanks=st.booleans(),
)
def test_any_texts_in_any_shape(cells, separator, title, trailing, end, blanks):
    """What is written in quotes is read again, whatever is around it."""
    quoted = [["y", "a", "b"], *([str(k % 2), *row] for k, row in enumerate(cells))]
    rows = [[f'"{cell}"' for cell in row] for row in quoted]
    body = title + text(rows, separator, end, separator if trailing else "")
    if blanks:
        body += end
    with TemporaryDirectory() as folder:
        found = read(body, Path(folder))
    expected = [[cell.replace("\n", "\n") or None for cell in row] for row in quoted[1:]]
    # Of the rows of a table, the last column is never empty throughout.
    assume(not trailing or any(row[-1] for row in quoted[1:]))
    got = [[cell or None for cell in row] for row in found.rows()]
    assert got == expected


def zstandard(content: bytes, folder: Path) -> bytes:
    pl.DataFrame({"line": content.decode().splitlines()}).lazy().sink_csv(
        folder / "z", include_header=False, quote_style="never", compression="zstd",
        check_extension=False,
    )  # fmt: skip
    return (folder / "z").read_bytes()


def zipped(content: bytes, folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", content)
        archive.writestr("__MACOSX/t.csv", b"x")
    return (folder / "z").read_bytes()


COMPRESSED = {
    ".gz": lambda content, _: gzip.compress(content),
    ".bz2": lambda content, _: bz2.compress(content),
    ".zip": zipped,
    ".zst": zstandard,
}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed(tmp_path, suffix):
    compress = COMPRESSED[suffix]
    found = read(compress(SHAPES["title"].encode(), tmp_path), tmp_path, f"t.csv{suffix}")
    assert found.rows() == [tuple(row) for row in ROWS]
    lines = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
    (tmp_path / "json").mkdir()
    found = read(compress(lines.encode(), tmp_path), tmp_path / "json", f"t.jsonl{suffix}")
    assert found.rows() == [tuple(row) for row in ROWS]
    (tmp_path / "short").mkdir()
    with pytest.raises(InputError, match=rf"t\.csv{suffix}, line 14: has 1 field, expected 3"):
        read(compress(f"{PLAIN}end\n".encode(), tmp_path), tmp_path / "short", f"t.csv{suffix}")
    (tmp_path / "cut").mkdir()
    cut = compress(PLAIN.encode() * 50, tmp_path)[:-30]
    with pytest.raises(InputError, match="damaged or truncated"):
        read(cut, tmp_path / "cut", f"t.csv{suffix}")


def test_json_lines(tmp_path):
    lines = ['{"y": 1, "a": "x", "n": 1}', "", '{"y": 0, "n": 2.5, "t": ["u", "v"]}']
    found = read("\n".join(lines), tmp_path, "t.jsonl")
    assert found.to_dict(as_series=False) == {
        "y": [1, 0],
        "a": ["x", None],
        "n": [1.0, 2.5],
        "t": [None, ["u", "v"]],
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"y": 1', "line 3: is no JSON object: Expecting"),
        ("[1, 2]", "line 3: is no JSON object: expected an object"),
        ('{"y": 1} {"y": 2}', "line 3: is no JSON object: Extra data"),
        ("5", "line 3: is no JSON object: expected an object"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "line 3: is no JSON object: maximum recursion"),
    ],
)
def test_lines_that_are_no_json(tmp_path, line, problem):
    body = f'{{"y": 1}}\n\n{line}\n{{"y": 0}}\n'
    with pytest.raises(InputError, match=rf"t\.jsonl, {problem}"):
        read(body, tmp_path, "t.jsonl")
    (tmp_path / "b").mkdir()
    assert read(body, tmp_path / "b", "t.jsonl", bad_rows="skip")["y"].to_list() == [1, 0]


def test_values_of_several_types(tmp_path):
    found = read('{"y": true}\n{"y": 3}\n{"y": "x"}\n', tmp_path, "t.jsonl")
    assert found["y"].to_list() == ["true", "3", "x"]
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"line 3, column a: is 3, but \[1\] above"):
        read('{"a": [1]}\n\n{"a": 3}\n', tmp_path / "b", "t.jsonl")


def test_json_of_another_form(tmp_path):
    with pytest.raises(InputError, match="is a JSON array, expected an object a line"):
        read('[\n {"y": 1}\n]\n', tmp_path, "t.json")


KINDS = ["good", "short", "long", "quotes", "blank"]


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_ragged_lines_are_left_out_with_their_places(data):
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1))
    separator = data.draw(st.sampled_from([",", "::"]))
    kinds = [kind for kind in kinds if separator == "," or kind != "quotes"]
    lines = {"good": ["1", "x", "2"], "short": ["end"], "long": ["1", "x", "2", "3"]}
    body, places, line = [separator.join(NAMES)] + [separator.join(ROWS[0])] * 9, [], 11
    for kind in kinds:
        body.append('1,"x"y,2' if kind == "quotes" else separator.join(lines.get(kind, [])))
        if kind not in ("good", "blank"):
            places.append((f"line {line}:", kind))
        line += 1
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("\n".join(body) + "\n")
        (parts := Path(folder) / "parts").mkdir()
        source = TableFiles([path], columns=("y",), bad_rows="skip")
        table = source.table(parts, lambda _: None)
        assert [reason_of(kind) for _, kind in places] == [fault.reason for fault in table.faults]
        for (place, _), fault in zip(places, table.faults, strict=True):
            assert f"t.csv, {place}" in str(fault.error)
        assert table.rows == 9 + kinds.count("good")
        # Good rows know their lines, too.
        good = [11 + place for place, kind in enumerate(kinds) if kind == "good"]
        for row, number in enumerate(good, start=9):
            assert f"line {number}:" in str(table.error(row, None, "x"))


def reason_of(kind: str) -> str:
    return {"short": "too few fields", "long": "too many fields"}.get(kind, kind)


def test_long_texts_beside_a_mistake(tmp_path):
    long = "x " * 100_000
    body = PLAIN + f'1,"{long}\n{long}",2\n1,y\n'
    with pytest.raises(InputError, match=r"line 16: has 2 fields, expected 3"):
        read(body, tmp_path)


def test_comments_between_rows_are_named(tmp_path):
    with pytest.raises(InputError, match=r"line 14: has 1 field, .*--comment '#'"):
        read(PLAIN + "# end\n", tmp_path)
    (tmp_path / "b").mkdir()
    found = read(PLAIN + "# end\n", tmp_path / "b", reading=Reading(comment="#"))
    assert len(found) == len(ROWS)


CELLS = st.text("ab ,;'|x", max_size=4).map(str.strip).filter(lambda cell: cell != "'")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from(["md", "arff"]))
def test_any_cells_of_a_printed_table(rows, kind):
    body = [["name", "note", "k"], *([*row, str(k)] for k, row in enumerate(rows))]
    if kind == "md":
        lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in body]
        lines.insert(1, "|---|---|--:|")
    else:
        lines = ["@relation r", *(f"@attribute {name} string" for name in body[0]), "@data"]
        quoted = [[f"'{c}'" if c else "?" for c in map(_escaped, row)] for row in body[1:]]
        lines += [",".join(row) for row in quoted]
    with TemporaryDirectory() as folder:
        found = read("\n".join(lines) + "\n", Path(folder), columns=())
    assert found.columns == body[0]
    assert found.rows() == [tuple(c or None for c in row) for row in body[1:]]


def _escaped(cell: str) -> str:
    return cell.replace("'", "\\'")


def test_bars_in_quotes(tmp_path):
    found = read('y|a\n---|---\n1|"b|c"\n0|"d ""e"""\n1|5" \n', tmp_path)
    assert found.rows() == [("1", "b|c"), ("0", 'd "e"'), ("1", '5"')]


def test_printed_tables_that_are_not_read(tmp_path):
    with pytest.raises(InputError, match=r"line 1: .*psql prints with \\x on.*CSV HEADER"):
        read("-[ RECORD 1 ]--\ny | 1\n", tmp_path)
    sparse = "@relation r\n@attribute y numeric\n@data\n{0 1}\n"
    with pytest.raises(InputError, match="line 4: is a sparse row of ARFF"):
        read(sparse, tmp_path)
    with pytest.raises(InputError, match="is ARFF, but has no line @data: expected one between"):
        read("@relation r\n@attribute y numeric\n@attribute b numeric\n0,1\n", tmp_path)
    short = "| y | b |\n|---|---|\n| 1 | 2 |\n| 1 |\n"
    with pytest.raises(InputError, match="line 4: has 1 field, expected 2"):
        read(short, tmp_path, name="u.md")


@settings(deadline=None, max_examples=200)
@given(st.text('a,"\n', max_size=40), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_what_separators_tell_is_so(body, trailing, end):
    """No text of which no record is too long, and that is even, has a short one or a blank line."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(f"y,b\n{body}".replace("\n", end).encode())
        shape = Shape(separator=",", names=("y", "b"), skip=1, trailing=trailing)
        text = Text(path, path, shape)
        try:
            rows = list(text.rows(quotes=False))
        except InputError:
            return
        faults = [row for row in rows if isinstance(row, Fault)]
        if any(fault.reason != "too few fields" for fault in faults):
            return
        blank = len(body.splitlines()) > len(rows)
        even = text.is_even()
        assert not even or not (faults or blank)
        if '"' not in body and not trailing:
            assert even == (not faults and not blank)
