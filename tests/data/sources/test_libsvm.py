import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.sources import libsvm
from dlrm.data.sources.libsvm import Entries, entries, is_libsvm
from dlrm.errors import InputError

labels = st.sampled_from(["0", "1", "-1", "+1", "0.5", "1e0", "12", None])
values = st.sampled_from(["1", "1", "1", "0", "2", "0.25", "-3.5", "1e-3", "1.0"])
Entry = tuple[int | None, int, str]
Lines = Sequence[tuple[str | None, Sequence[Entry]]]
entry = st.tuples(st.none() | st.integers(0, 9), st.integers(0, 10**12), values)
line = st.tuples(labels, st.lists(entry, max_size=5))


def text(lines: Lines, *, space: str = " ", end: str = "\n") -> str:
    written = []
    for label, found in lines:
        words = [] if label is None else [label]
        for field, index, value in found:
            words.append(f"{index}:{value}" if field is None else f"{field}:{index}:{value}")
        written.append(space.join(words) + end)
    return "".join(written)


def check(found: list[Entries], lines: Lines) -> None:
    flat = [each for _, mine in lines for each in mine]
    assert [label for part in found for label in part.labels] == [label for label, _ in lines]
    assert np.concatenate([part.lengths for part in found]).tolist() == [len(m) for _, m in lines]
    fields = [-1 if field is None else field for field, _, _ in flat]
    assert np.concatenate([part.field for part in found]).tolist() == fields
    assert np.concatenate([part.index for part in found]).tolist() == [each[1] for each in flat]
    expected = [float(each[2]) for each in flat]
    assert np.concatenate([part.value for part in found]).tolist() == expected


@settings(deadline=None)
@given(
    st.lists(line.filter(lambda each: each[0] is not None or each[1]), min_size=1, max_size=12),
    st.sampled_from(
        [(" ", "\n"), (" ", " \n"), ("  ", "\n"), (" \t", "\r\n"), (" ", " # note 1:x\n")]
    ),
)
def test_lines_are_read_as_written(tmp_path_factory, lines, form):
    space, end = form
    path = tmp_path_factory.getbasetemp() / "t.libsvm"
    path.write_bytes(text(lines, space=space, end=end).encode())
    check(list(entries(path)), lines)


@settings(deadline=None)
@given(st.lists(line.filter(lambda each: each[0] is not None or each[1]), min_size=1, max_size=12))
def test_entries_are_those_that_were_written(lines):
    check([libsvm._entries(text(lines).encode(), 1, Path("t"))], lines)


NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
ENTRY = re.compile(rf"(\d+:)?\+?\d+:{NUMBER}")


@settings(deadline=None)
@given(st.text(alphabet="01: \n+-.e", max_size=30))
def test_what_is_no_entry_is_refused(chunk):
    chunk = chunk.rstrip("\n") + "\n"
    lines = [line.split() for line in chunk.removesuffix("\n").split("\n")]
    words = [w for line in lines for w in (line if line and ":" in line[0] else line[1:])]
    try:
        found = libsvm._entries(chunk.encode(), 1, Path("t"))
    except InputError:
        assert not all(map(ENTRY.fullmatch, words))
        return
    assert all(":" in word for word in words)
    assert found.lengths.tolist() == [sum(":" in word for word in line) for line in lines]
    values = [float(word.rsplit(":", 1)[1]) for word in words]
    assert found.value.tolist() == values


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("1 5", '"5" is not index:value'),
        ("1 5:", '"5:" is not index:value'),
        ("1 :5", '":5" is not index:value'),
        ("1 -5:1", '"-5:1" is not index:value'),
        ("1 x:1", '"x:1" is not index:value'),
        ("1 5:x", '"5:x" is not index:value'),
        ("1 5:inf", '"5:inf" is not index:value'),
        ("1 1.5:1", '"1.5:1" is not index:value'),
        ("1 1:2:3:4", '"1:2:3:4" is not index:value'),
        ("1 -1:2:1", '"-1:2:1" is not index:value'),
        ("1 5:1 2423 7:1", '"2423" is not index:value'),
        ("1 é:1", '"é:1" is not index:value'),
    ],
)
def test_bad_lines_are_named(tmp_path, bad, said):
    path = tmp_path / "t.libsvm"
    path.write_text("0 1:1\n" * 40 + bad + "\n" + "1 2:1\n" * 3)
    with pytest.raises(InputError, match=re.escape(f"{path}, line 41: {said}")):
        list(entries(path))


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(libsvm, "_CHUNK_BYTES", 100)
    rng = np.random.default_rng(0)
    lines = [(str(k % 2), [(None, int(i), "1") for i in rng.integers(0, 99, 4)]) for k in range(90)]
    path = tmp_path / "t.libsvm"
    path.write_text(text(lines))
    found = list(entries(path))
    assert len(found) > 5
    check(found, lines)
    assert [part.first for part in found] == np.cumsum([1, *(len(p.lengths) for p in found)])[
        :-1
    ].tolist()
    layout = libsvm.find_layout([path])
    assert sum(frame.height for frame in libsvm.frames(path, layout)) == 90


LAYOUTS = {
    "1 1:1 5:1\n0 2:1 5:1\n": ("positions", ("f0", "f1"), ()),
    "1 1:1 5:1\n0 5:1 1:1\n": ("bag", ("ids",), ("ids",)),
    "1 1:1 5:1\n0 5:1\n": ("bag", ("ids",), ("ids",)),
    "1 1:1\n0\n": ("bag", ("ids",), ("ids",)),
    "1 0:0.5 2:1\n0 1:2\n": ("numbers", ("0", "1", "2"), ()),
    "1 0:7:1 3:8:1\n0 3:9:1\n": ("fields", ("f0", "f3"), ()),
    "1 0:7:1 3:8:0.2 3:9:1\n0 3:9:1\n": ("fields", ("f0", "f3", "f3 value"), ("f3",)),
    "1 0:7:1 3:8:0.2\n0 3:8:1\n": ("fields", ("f0", "f3"), ()),
}


@pytest.mark.parametrize("content", LAYOUTS)
def test_layouts(tmp_path, content):
    path = tmp_path / "t.libsvm"
    path.write_text(content)
    layout = libsvm.find_layout([path])
    assert (layout.kind, layout.names, layout.lists) == LAYOUTS[content]
    assert libsvm.Layout.from_dict(layout.to_dict()) == layout


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([0.25, 1, 3]))),
        min_size=1,
        max_size=6,
    )
)
def test_no_value_of_a_field_is_lost(lines):
    lines = [[(0, 0, 1), *line] for line in lines]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.ffm"
        rows = (" ".join(f"{f}:{i}:{v}" for f, i, v in line) for line in lines)
        path.write_text("".join(f"1 {row}\n" for row in rows))
        layout = libsvm.find_layout([path])
        frame = pl.concat(libsvm.frames(path, layout))
    for field in range(4):
        sums = [sum(v for f, _, v in line if f == field) for line in lines]
        if all(v == 1 for line in lines for f, _, v in line if f == field):
            assert f"f{field}" not in layout.numbers
        else:
            name = f"f{field} value" if f"f{field} value" in layout.names else f"f{field}"
            assert frame[name].to_list() == sums
            indices = {i for line in lines for f, i, _ in line if f == field}
            assert len(indices) == 1 or f"f{field}" not in layout.numbers


def test_new_lines_in_a_known_layout(tmp_path):
    path = tmp_path / "t.libsvm"
    path.write_text("1 1:1 5:1\n0 2:1\n")
    positions = libsvm.Layout(kind="positions", names=("f0", "f1"))
    with pytest.raises(InputError, match="line 2: has 1 entries, expected 2"):
        list(libsvm.frames(path, positions))
    numbers = libsvm.Layout(kind="numbers", names=("0", "1"))
    (frame,) = libsvm.frames(path, numbers)
    assert frame["1"].to_list() == [1.0, 0.0]
    path.write_text("0:3:1\n0:4:1 0:5:1 1:6:1\n")
    (frame,) = libsvm.frames(
        path, libsvm.Layout(kind="fields", names=("f0", "f1", "f2"), lists=("f1",))
    )
    assert frame["label"].to_list() == [None, None]
    assert frame["f0"].to_list() == ["3", "4"]
    assert frame["f1"].to_list() == [None, ["6"]]
    assert frame["f2"].to_list() == [None, None]


def test_too_many_numbers(tmp_path):
    path = tmp_path / "t.libsvm"
    path.write_text("1 9999:0.5\n")
    with pytest.raises(InputError, match="has values other than 1 for indices up to 9999"):
        libsvm.find_layout([path])


def test_what_is_libsvm():
    assert is_libsvm(["1 1:1 2:0.5", "0 3:1"])
    assert is_libsvm(["1", "0 3:1  # note"])
    assert is_libsvm(["0:1:1 3:4:1"])
    for lines in (["a,b", "1:2,3"], ["1", "2"], ["time 12:30:00"], ["12:30:00", "x"], []):
        assert not is_libsvm(lines)
