import gzip
import os
import zlib
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data.sources.criteo import CATEGORIES, INTEGERS, CriteoSource
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.records import Fault
from dlrm.errors import ConfigError, InputError

from .logs import log, rows, text, write

fuzz = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(*paths: Path, chunk_bytes: int = 1 << 20, **options) -> pl.DataFrame:
    return pl.concat(CriteoSource(paths, chunk_bytes=chunk_bytes, **options).read())


def parsed(log) -> pl.DataFrame:
    """Parse a log a cell at a time."""
    columns = {"label": pl.Series([int(row[0]) for row in log], dtype=pl.UInt8)}
    for number, name in enumerate(INTEGERS, start=1):
        cells = [int(row[number]) if row[number] else None for row in log]
        columns[name] = pl.Series(cells, dtype=pl.Int64)
    for number, name in enumerate(CATEGORIES, start=14):
        cells = [int(row[number], 16) if row[number] else None for row in log]
        columns[name] = pl.Series(cells, dtype=pl.UInt32)
    return pl.DataFrame(columns)


@pytest.mark.usefixtures("both")
@fuzz
@given(
    log=rows(),
    chunk_bytes=st.integers(1, 4000),
    ends=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    blank=st.integers(0, 3),
    suffix=st.sampled_from([".txt", ".gz"]),
)
def test_reads_what_a_plain_parser_reads(tmp_path, log, chunk_bytes, ends, last, blank, suffix):
    content = text(log, ends=ends, last=last) + (ends * blank).encode()
    path = tmp_path / f"log{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    assert read(path, chunk_bytes=chunk_bytes).equals(parsed(log))


def left_out(source: CriteoSource) -> list[Fault]:
    """Return what a log leaves out, with places in the log."""
    return RawTable(tuple(source.parts())).faults


@fuzz
@given(first=rows(), second=rows(), chunk_bytes=st.integers(1, 4000))
def test_several_files_are_one_log(tmp_path, first, second, chunk_bytes):
    one = write(tmp_path / "day_0", first, last=False)
    two = write(tmp_path / "day_1.gz", second)
    source = CriteoSource([one, two], chunk_bytes=chunk_bytes)
    assert pl.concat(source.read()).equals(parsed(first + second))
    parts = list(source.parts())
    assert [sum(p.rows for p in parts if p.origin == file) for file in (one, two)] == [
        len(first),
        len(second),
    ]


PRINTABLE = """
    0 1 2 -1 +1 01 - --1 1.5 1e3 1_0 0x1f g -0 00 ff 123456789 9223372036854775807
    9223372036854775808 -9223372036854775808 " "1" true null NaN é １ #
"""
CELLS = st.sampled_from([*PRINTABLE.split(), "", " 1", "1 ", "a b", "\x00", "\r", "\x0b"])


@pytest.mark.usefixtures("both")
@settings(fuzz, max_examples=300)
@given(
    log=rows(max_size=6),
    faults=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 39), CELLS), max_size=3),
    chunk_bytes=st.sampled_from([1, 500, 100_000]),
)
def test_accepts_exactly_the_rows_that_are_as_documented(tmp_path, log, faults, chunk_bytes):
    """The fast parser and the definition agree, on good rows and on every kind of bad one."""
    cells = [list(row) for row in log]
    for row, column, value in faults:
        cells[row % len(cells)][column] = value

    def good(row: list[str]) -> bool:
        return (
            row[0] in ("0", "1")
            and all(
                not cell
                or (
                    (cell.removeprefix("-").isascii() and cell.removeprefix("-").isdigit())
                    and -(2**63) <= int(cell) < 2**63
                )
                for cell in row[1:14]
            )
            and all(
                len(cell) <= 8 and all(letter in "0123456789abcdefABCDEF" for letter in cell)
                for cell in row[14:]
            )
        )

    kept = [tuple(row) for row in cells if good(row)]
    path = tmp_path / "log.txt"
    path.write_bytes("".join("\t".join(row) + "\n" for row in cells).encode())
    # A carriage return at the very end of a line is part of the line's end.
    cr = [row for row in cells if row[39].endswith("\r")]
    if cr:
        return
    source = CriteoSource(path, bad_rows="skip", chunk_bytes=chunk_bytes)
    frames = list(source.read())
    found = pl.concat(frames) if frames else parsed([])
    assert found.equals(parsed(kept))
    assert len(left_out(source)) == len(cells) - len(kept)
    if len(kept) < len(cells):
        first = next(number for number, row in enumerate(cells, start=1) if not good(row))
        with pytest.raises(InputError) as caught:
            list(CriteoSource(path, chunk_bytes=chunk_bytes).read())
        assert f"{path}, line {first}" in str(caught.value)


def spoiled(row: int, column: int, value: str) -> bytes:
    cells = [list(each) for each in log(9)]
    cells[row][column] = value
    return text([tuple(each) for each in cells])


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("chunk_bytes", [1, 700, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        (spoiled(3, 0, "2"), 4, "label", 'label is "2", expected 0 or 1'),
        (spoiled(0, 0, ""), 1, "label", 'label is "", expected 0 or 1'),
        (spoiled(8, 1, "1.5"), 9, "I1", 'count is "1.5", expected a whole number'),
        (spoiled(5, 13, "x"), 6, "I13", 'count is "x"'),
        (spoiled(1, 2, "9" * 19), 2, "I2", f'count is "{"9" * 19}"'),
        (spoiled(2, 14, "xyz"), 3, "C1", 'category is "xyz", expected up to 8 hexadecimal digits'),
        (spoiled(2, 39, "123456789"), 3, "C26", 'category is "123456789"'),
        (spoiled(6, 20, "-1"), 7, "C7", 'category is "-1"'),
        (spoiled(4, 5, "1\t2"), 5, None, "41 columns, expected 40"),
        (text(log(9)) + b"1\t2\t3\n" + text(log(2)), 10, None, "3 columns, expected 40"),
        (text(log(3)) + b"\n" + text(log(2)), 4, None, "1 columns, expected 40"),
        (text(log(3)) + b"\0\0\0\0", 4, None, "NUL byte"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, None, "1 columns, expected 40"),
        (text([row[1:] for row in log(2)]), 1, None, "39 columns, expected 40"),
    ],
)
def test_bad_rows_are_named_exactly(tmp_path, content, line, column, message, chunk_bytes):
    path = tmp_path / "log.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(CriteoSource(path, chunk_bytes=chunk_bytes).read())
    error = caught.value
    assert (error.file, error.line, error.column) == (str(path), line, column)
    assert message in error.problem


def test_the_line_is_counted_in_its_own_file(tmp_path):
    good, bad = write(tmp_path / "day_0", log(5)), tmp_path / "day_1"
    bad.write_bytes(spoiled(1, 0, "yes"))
    with pytest.raises(InputError, match=r"day_1, line 2, column label"):
        read(good, bad)


def test_missing_empty_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: there is no such file"):
        CriteoSource(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="is a folder, expected a file"):
        CriteoSource(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device"):
        CriteoSource(tmp_path / "pipe")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"empty\.txt: the file is empty"):
        CriteoSource(tmp_path / "empty.txt")
    for name, content in (("blank.txt", b"\n\r\n\n"), ("blank.gz", gzip.compress(b""))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="the file is empty"):
            read(tmp_path / name)
    with pytest.raises(ConfigError, match="no raw file"):
        CriteoSource([])
    with pytest.raises(ConfigError, match="error or skip"):
        CriteoSource(write(tmp_path / "a", log(1)), bad_rows="ignore")  # pyright: ignore


def test_damaged_gzip_files_name_the_line_reached(tmp_path):
    content = text(log(2000))
    packed = gzip.compress(content)
    path = tmp_path / "log.gz"
    path.write_bytes(packed[: len(packed) // 2])
    reached = zlib.decompressobj(wbits=31).decompress(packed[: len(packed) // 2]).count(b"\n") + 1
    for chunk_bytes in (1000, 1 << 20):
        with pytest.raises(InputError, match="truncated") as caught:
            read(path, chunk_bytes=chunk_bytes)
        assert caught.value.line == reached
    path.write_bytes(packed[:5])
    with pytest.raises(InputError, match="truncated"):
        read(path)
    path.write_bytes(packed[:-8] + b"\1\2\3\4\5\6\7\7")
    with pytest.raises(InputError, match="damaged"):
        read(path)
    path.write_bytes(packed + b"rubbish")
    with pytest.raises(InputError, match="damaged"):
        read(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"named \.gz but is not a gzip file"):
        read(path)


def test_gzip_in_several_members_padded_and_without_its_suffix(tmp_path):
    path = tmp_path / "log"
    members = [gzip.compress(text(log(20, seed))) for seed in range(3)]
    path.write_bytes(b"".join(members) + b"\0" * 512)
    assert read(path).equals(parsed(log(20, 0) + log(20, 1) + log(20, 2)))


def test_a_line_without_end_stops_early(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"7" * (3 << 20))
    with pytest.raises(InputError, match=r"line 1: is longer than"):
        read(path, chunk_bytes=1 << 16)


@pytest.mark.usefixtures("both")
def test_skip_counts_by_reason(tmp_path):
    path = tmp_path / "log.txt"
    bad = [spoiled(0, 0, "9"), spoiled(0, 3, "a"), spoiled(0, 30, "zz"), b"short\n" * 4]
    path.write_bytes(b"".join(bad) + text(log(5)))
    source = CriteoSource(path, bad_rows="skip", chunk_bytes=3000)
    assert sum(frame.height for frame in source.read()) == 8 * 3 + 5
    bad = left_out(source)
    assert Counter(fault.reason for fault in bad) == {
        "label": 1,
        "count": 1,
        "category": 1,
        "columns": 4,
    }
    assert str(bad[0].error).startswith(f"{path}, line 1, column label")


@pytest.mark.usefixtures("both")
def test_rows_without_labels_are_read_for_prediction(tmp_path):
    rows = log(30)
    path = write(tmp_path / "test.txt", [row[1:] for row in rows])
    source = CriteoSource(path, labelled=None, chunk_bytes=2000)
    assert not source.labelled
    expected = parsed(rows).with_columns(pl.lit(0, pl.UInt8).alias("label"))
    assert pl.concat(source.read()).equals(expected)
    labelled = CriteoSource(write(tmp_path / "train.txt", rows), labelled=None)
    assert labelled.labelled
    assert pl.concat(labelled.read()).equals(parsed(rows))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rows_are_estimated(tmp_path, suffix):
    path = write(tmp_path / f"log{suffix}", log(5000))
    assert CriteoSource(path).rows() == pytest.approx(5000, rel=0.2)


def test_the_fingerprint_follows_the_content_and_nothing_else(tmp_path):
    one = CriteoSource(write(tmp_path / "a", log(50))).fingerprint()
    assert CriteoSource(write(tmp_path / "renamed", log(50))).fingerprint() == one
    assert CriteoSource(write(tmp_path / "b", log(50, seed=1))).fingerprint() != one
    assert CriteoSource(tmp_path / "a", bad_rows="skip").fingerprint() != one
    assert CriteoSource([tmp_path / "a"] * 2).fingerprint() != one


def test_the_fingerprint_of_a_large_file_sees_its_middle_and_its_end(tmp_path):
    path = tmp_path / "large"
    size = 20 << 20
    path.write_bytes(b"0" * size)
    one = CriteoSource(path).fingerprint()
    for place in (0, size // 63 * 31, size - 1):
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"1")
        assert CriteoSource(path).fingerprint() != one
        one = CriteoSource(path).fingerprint()
