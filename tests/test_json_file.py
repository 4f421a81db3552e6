"""What our JSON files may say, and what they may not."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.errors import RunError
from dlrm.json_file import read_json, write_sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES, max_size=4)
SAME_FOLDER = [HealthCheck.function_scoped_fixture]


@given(values=OBJECTS)
@settings(max_examples=40, deadline=None, suppress_health_check=SAME_FOLDER)
def test_what_was_sealed_is_read_again(tmp_path, values):
    write_sealed(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json", RunError, sealed=True) == values


@given(values=OBJECTS, place=st.integers(0, 1 << 16), bit=st.integers(0, 7))
@settings(max_examples=80, deadline=None, suppress_health_check=SAME_FOLDER)
def test_a_flipped_bit_changes_nothing_silently(tmp_path, values, place, bit):
    path = tmp_path / "x.json"
    write_sealed(path, values)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with suppress(RunError):
        assert read_json(path, RunError, sealed=True) == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"7", "expected a JSON object, found int"),
        (b"[1]", "expected a JSON object, found list"),
        (b"{half", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1, "a": 2}', '"a" stands there twice'),
        (b'{"b": 1}', 'it has no "a"'),
    ],
)
def test_what_is_not_ours_is_said_with_its_file(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        read_json(tmp_path / "x.json", RunError, keys=("a",), advice="do this")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: ")
    assert str(caught.value).endswith("; do this")


def test_what_is_no_file_is_said(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("loop", "folder", "nothing"):
        with pytest.raises(RunError, match=name):
            read_json(tmp_path / name, RunError)


def test_a_file_without_a_seal_is_not_sealed(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "x.json", RunError) == {"a": 1}
    with pytest.raises(RunError, match='no "sha256"'):
        read_json(tmp_path / "x.json", RunError, sealed=True)
