"""The kernels in C++ beside their counterparts in Polars, on good input and bad."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data import kernels
from dlrm.data.sources.criteo import CriteoSource, frame_of, parse_with_polars
from dlrm.data.vocabulary import _distinct_with_polars, distinct
from dlrm.errors import InputError

from .logs import log, rows, text, write

needs_kernels = pytest.mark.skipif(
    not kernels.available(), reason="the kernels cannot be compiled here"
)
fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def agree(content: bytes, *, labelled: bool = True) -> bool:
    """Check that the kernel takes a text as Polars does, if it takes it; return whether it did."""
    lines = content.count(b"\n")
    columns = kernels.parse_criteo(content, lines, labelled=labelled)
    expected = parse_with_polars(content, lines, labelled=labelled)
    if columns is None:
        return False
    assert expected is not None, content
    assert frame_of(columns).equals(expected), content
    return True


@needs_kernels
@settings(fuzz, max_examples=200)
@given(log=rows(), labelled=st.booleans())
def test_good_text_is_taken_as_polars_takes_it(log, labelled):
    assert agree(text([row[1 - labelled :] for row in log]), labelled=labelled)


BYTES = st.sampled_from([*b"019afAFgG:/@`- +\t\n\r\0\x80\xff", *b"\t\n\t\n"])


@needs_kernels
@settings(fuzz, max_examples=500)
@given(
    log=rows(max_size=3),
    labelled=st.booleans(),
    edits=st.lists(
        st.tuples(st.integers(0, 10**4), st.sampled_from("=+-"), BYTES), min_size=1, max_size=4
    ),
)
def test_bad_text_is_never_taken_for_good(log, labelled, edits):
    """Bytes are replaced, added and removed anywhere; whatever the kernel takes, Polars takes."""
    content = bytearray(text([row[1 - labelled :] for row in log]))
    for place, edit, byte in edits:
        at = place % len(content)
        content[at : at + (edit != "+")] = b"" if edit == "-" else bytes([byte])
        content = content or bytearray(b"\n")
    agree(bytes(content) + b"\n" * (not content.endswith(b"\n")), labelled=labelled)


@needs_kernels
@pytest.mark.parametrize(
    ("count", "category", "taken"),
    [
        ("-999999999999999999", "0", True),
        ("9" * 18, "FFFFFFFF", True),
        ("0" * 18, "00000000", True),
        ("-0", "aB", True),
        ("9" * 19, "0", False),
        ("-", "0", False),
        ("--1", "0", False),
        ("+1", "0", False),
        ("1-", "0", False),
        ("1", "123456789", False),
        ("1", "0x1", False),
        ("1", "-1", False),
        ("1", " 1", False),
    ],
)
def test_the_ends_of_what_is_taken(count, category, taken):
    good = log(2)
    for number in (1, 13):
        for place in (14, 39):
            row = list(good[0])
            row[number], row[place] = count, category
            assert agree(text([good[0], tuple(row), good[1]])) == taken


@pytest.mark.parametrize(
    ("count", "value"),
    [(str(-(2**63)), -(2**63)), (str(2**63 - 1), 2**63 - 1), ("0" * 5000 + "7", 7)],
)
def test_numbers_that_the_kernel_leaves_are_still_read(tmp_path, count, value):
    rows = [("1", *[count] * 13, *["7"] * 26), ("2", *[""] * 39), ("0", *["-1"] * 13, *["f"] * 26)]
    source = CriteoSource(write(tmp_path / "log", rows), bad_rows="skip")
    frame = pl.concat(source.read())
    assert frame.rows() == [(1, *[value] * 13, *[7] * 26), (0, *[-1] * 13, *[15] * 26)]
    assert sum(len(part.faults) for part in source.parts()) == 1


def test_a_number_of_thousands_of_digits_is_named(tmp_path):
    path = write(tmp_path / "log", [("1", "9" * 5000, *[""] * 38)])
    with pytest.raises(InputError, match="column I1: count is"):
        list(CriteoSource(path).read())


@needs_kernels
def test_no_lines_and_a_last_line_without_end():
    assert agree(b"")
    content = text(log(3))
    assert kernels.parse_criteo(content[:-1], 2, labelled=True) is None


narrow = st.sampled_from([pl.UInt8, pl.Int16, pl.UInt32, pl.Int64])


@needs_kernels
@fuzz
@given(
    st.lists(st.none() | st.integers(-1, 5) | st.sampled_from([2**32 - 1, 2**32]), max_size=60),
    narrow,
    st.booleans(),
)
def test_distinct_is_as_without_kernels(values, dtype, counted):
    series = pl.Series(values, dtype=pl.Int64).cast(dtype, strict=False)
    counts = pl.Series(range(len(values)), dtype=pl.UInt32) if counted else None
    expected, expected_codes = _distinct_with_polars(series, counts)
    groups, codes = distinct(series, counts)
    assert groups.equals(expected)
    assert groups.schema == expected.schema
    np.testing.assert_array_equal(codes, expected_codes)


@needs_kernels
@pytest.mark.parametrize("step", [1, 3, 1 << 12, 1 << 20, 2654435769, 340573321])
def test_distinct_of_many_values_as_the_table_grows(step):
    # The last two undo the table's hash: neighbours collide as much as they can.
    drawn = np.random.default_rng(0).integers(0, 60_000, 100_000, dtype=np.uint64)
    series = pl.Series((drawn * step).astype(np.uint32))
    expected, expected_codes = _distinct_with_polars(series)
    groups, codes = distinct(series)
    assert groups.equals(expected)
    np.testing.assert_array_equal(codes, expected_codes)


PREPARE = """
import sys
from dlrm.data.sources.criteo import CriteoSource
from dlrm.data.prepare import prepare
print(prepare(CriteoSource(sys.argv[1]), sys.argv[2]).dataset.manifest["splits"])
"""


def run(folder: Path, out: str, **environment: str) -> tuple[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DLRM_") and k != "CXX"}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(folder / "log.txt"), str(folder / out)],
        env={**inherited, "DLRM_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_without_a_compiler_polars_does_the_same_and_says_so_once(tmp_path):
    write(tmp_path / "log.txt", log(300))
    (tmp_path / "empty").mkdir()
    without, message = run(tmp_path, "without", PATH=str(tmp_path / "empty"))
    assert message.count("dlrm:") == 1
    assert "there is no C++ compiler" in message
    forced, message = run(tmp_path, "forced", DLRM_KERNELS="reference")
    assert "dlrm:" not in message
    assert not (tmp_path / "cache").exists()
    compiled, message = run(tmp_path, "compiled")
    if kernels.available():
        assert message.count("compiling its kernels for raw logs, once") == 1
        assert "dlrm:" not in run(tmp_path, "again")[1]
    assert without == forced == compiled  # with the hashes of all arrays


@needs_kernels
def test_the_kernels_compile_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("DLRM_CACHE", str(tmp_path))
    monkeypatch.setenv("DLRM_CXXFLAGS", "-O1 -Wall -Wextra -Werror")
    assert kernels._load() is not None
