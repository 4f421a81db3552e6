"""Bodies from anybody: a request comes out of them, or a refusal, and nothing else."""

import gzip
import json
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlrm.schema import DenseFeature, Feature, Schema, Table
from dlrm.serving.limits import Limits, RefusalError
from dlrm.serving.protocol import (
    HEADER_LENGTH,
    decompressed,
    encode_infer,
    parse_infer,
    parse_json,
)
from dlrm.serving.rows import parse_rows
from dlrm.serving.signature import Signature

LIMITS = Limits(body_bytes=10_000, rows=50)
FLAT = Signature(Schema.one_hot(3, [10, 20]))
LISTS = Signature(
    Schema(
        dense=(DenseFeature(name="x"),),
        tables=(Table(name="t", num_embeddings=9),),
        features=(Feature(name="a", table="t"), Feature(name="b", table="t", kind="bag")),
        labels=("l", "m"),
    )
)

numbers = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
values = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)
names = st.sampled_from(["dense", "ids", "values", "offsets", "logits", "x"]) | values
sizes = st.integers(-2, 5) | st.sampled_from([1 << 31, 1 << 70]) | values
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "datatype": st.sampled_from(["FP32", "FP64", "INT64", "INT32", "BYTES"]) | values,
        "shape": st.lists(sizes, max_size=3) | values,
        "data": st.lists(numbers, max_size=9) | values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": sizes}) | values,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | values,
        "inputs": st.lists(tensors, max_size=4) | values,
        "outputs": st.lists(tensors, max_size=3) | values,
        "parameters": values,
    },
)


def infer(body: bytes, length: str | None, signature: Signature) -> None:
    asked = parse_infer(body, length, signature)
    encoded = signature.encoded(asked.tensors, LIMITS)
    assert 0 < len(encoded) <= LIMITS.rows
    assert np.isfinite(encoded.dense).all()
    assert set(asked.outputs) <= {"logits", "scores"}


@settings(max_examples=400, deadline=None)
@given(requests | values, st.binary(max_size=40), st.sampled_from([FLAT, LISTS]), st.data())
def test_whatever_json_says_is_a_request_or_refused(value, tail, signature, data):
    head = json.dumps(value).encode()
    exact = st.just(str(len(head)))
    length = data.draw(st.none() | exact | st.integers().map(str) | st.text(max_size=4))
    with suppress(RefusalError):
        infer(head + tail, length, signature)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "", "br"]))
@example(b"[" * 100_000, "")
@example(b'{"a":' * 50_000, "")
@example(b"1" * 9_000, "")
@example(b'"\xff"', "")
@example(zlib.compress(b"0" * 1_000_000), "deflate")
@example(gzip.compress(b"{}")[:-4], "gzip")
def test_whatever_bytes_there_are_is_refused_or_read(body, encoding):
    for parse in (
        lambda body: infer(body, None, FLAT),
        parse_json,
        lambda body: parse_rows(body, LIMITS),
    ):
        with suppress(RefusalError):
            parse(decompressed(body, encoding, LIMITS))


cells = st.text(max_size=3) | st.integers() | st.none() | st.lists(st.integers(), max_size=2)
small_rows = st.lists(st.dictionaries(st.text(max_size=3), cells, max_size=3), max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    small_rows | values,
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(list('{}[],: "x1\n'))), max_size=2),
)
def test_long_bodies_are_read_row_by_row_alike(value, wrapped, indent, changes):
    text = json.dumps({"rows": value} if wrapped else value, indent=indent)
    for number, letter in changes:
        at = number % (len(text) + 1)
        text = text[:at] + letter + text[at + 1 :]
    outcomes: list[object] = []
    for long in (0, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dlrm.serving.rows.LONG_BYTES", long)
            try:
                outcomes.append(parse_rows(text.encode("utf-8", "surrogatepass"), LIMITS))
            except RefusalError as refusal:
                outcomes.append((refusal.status, str(refusal)))
    one, other = outcomes
    if isinstance(one, tuple) and one[0] == 413:
        # How many more there are is not counted, nor whether they are JSON.
        assert "more than 50 rows" in one[1]
        assert isinstance(other, tuple)
        assert other[0] in (400, 413)
    else:
        assert one == other


@given(
    st.integers(1, 20), st.booleans(), st.sampled_from(["FP32", "FP64"]), st.sampled_from([4, 8])
)
def test_tensors_in_json_and_in_bytes_are_the_same(rows, nested, kind, width):
    rng = np.random.default_rng(rows)
    dense = rng.normal(size=(rows, 3)).astype(f"f{kind[2:3] and int(kind[2:]) // 8}")
    ids = rng.integers(0, 10, (rows, 2)).astype(f"i{width}")
    described = [
        {"name": "dense", "datatype": kind, "shape": [rows, 3]},
        {"name": "ids", "datatype": f"INT{8 * width}", "shape": [rows, 2]},
    ]
    arrays = [dense, ids]
    texts = [
        {**one, "data": (array if nested else array.ravel()).tolist()}
        for one, array in zip(described, arrays, strict=True)
    ]
    as_text = parse_infer(json.dumps({"inputs": texts}).encode(), None, FLAT)
    sized = [
        {**one, "parameters": {"binary_data_size": array.nbytes}}
        for one, array in zip(described, arrays, strict=True)
    ]
    head = json.dumps({"id": "7", "inputs": sized, "outputs": [{"name": "logits"}]}).encode()
    tail = b"".join(array.tobytes() for array in arrays)
    as_bytes = parse_infer(head + tail, str(len(head)), FLAT)
    assert (as_bytes.id, as_bytes.outputs) == ("7", {"logits": False})
    for name, array in zip(("dense", "ids"), arrays, strict=True):
        assert np.array_equal(as_text.tensors[name], array)
        assert np.array_equal(as_bytes.tensors[name], array)
    one = FLAT.encoded(as_text.tensors, LIMITS)
    assert np.array_equal(one.dense, dense.astype(np.float32))
    with pytest.raises(RefusalError, match="belong to no input"):
        parse_infer(head + tail + b"x", str(len(head)), FLAT)


def test_outputs_are_json_or_bytes():
    outputs = {
        "scores": np.array([[0.1], [np.nan]], np.float32),
        "logits": np.array([[1], [2]], np.float32),
    }
    headers, body = encode_infer({"id": "1"}, outputs, {"scores": False, "logits": True})
    length = int(dict(headers)[HEADER_LENGTH])
    scores, logits = json.loads(body[:length])["outputs"]
    assert np.float32(scores["data"][0]) == np.float32(0.1)
    assert scores["data"][1] is None
    assert logits["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(body[length:], "<f4").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"values": [1, 2], "offsets": [0, 1, 2]}, "different numbers of rows"),
        ({"values": [1, 2], "offsets": [0, 1]}, "rise from 0 to the number of values, 2"),
        ({"values": [1, 2], "offsets": [-1, 2]}, "must rise"),
        ({"values": [1, 2], "offsets": []}, "offsets has 0 numbers"),
        ({"values": [1, 2]}, 'input "offsets" is missing'),
    ],
)
def test_lists_must_be_whole(tensors, message):
    named = {name: np.array(array, np.int64) for name, array in tensors.items()}
    rows = {"dense": np.ones((1, 1), np.float32), "ids": np.zeros((1, 1), np.int64)}
    with pytest.raises(RefusalError, match=message):
        LISTS.encoded({**rows, **named}, LIMITS)
