"""Requests as clients should never send them: valid ones, damaged at random.

`Mutants(models, seed)[k]` is the k-th request of a seed, whatever was asked before, so that a
failure is repeated from two numbers. Bodies are damaged as bytes (bits flipped, pieces cut, pasted,
repeated), as JSON (values replaced, keys dropped and doubled, nested deep, numbers that no type
holds) and as tensors (sizes, NaN, ids out of range), and beside them paths, methods, lengths,
compression and tokens.
"""

import gzip
import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.serving.protocol import HEADER_LENGTH

NUMBERS = (
    *(b"1e999", b"-1", b"-0", b"NaN", b"Infinity", b"0.1e-400", b"9" * 30, b"1" * 5000),
    *(b"9223372036854775808", b"18446744073709551616", b"1e308", b"2147483648", b"1.5", b"007"),
)
TEXTS = (
    *(b'"\\ud800"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\x00"', b'"\\u0000"', b'""', b"'x'"),
    *('"\u2028\U0001f600"'.encode(), b'"' + b"x" * 3000 + b'"', b'"1,5"', b'"2026-02-30"'),
)
_MANY = ",".join(f'{{"{key}":1}}' for key in range(5000)).encode()
VALUES = (
    *NUMBERS,
    *TEXTS,
    *(b"null", b"true", b"[]", b"{}", b"[[]]", b"[null]", b'{"":{}}', b"[1,[2]]", b"[" * 3000),
    *(b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 20_000 + b"]" * 20_000),
    *(b"[" * 25 + b"]" * 25, b"[" + _MANY + b"]"),
)
"""JSON texts, and some that are none, that take the place of a value."""
BYTES = (
    b"\x00",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"\xef\xbb\xbf",
    b"\r\n",
)
LENGTHS = ("", "0", "1", "-1", "x", "99999999999999", "1e3", " 10", "\u0661", "0x10", "+5", "10,10")
PATHS = (
    *("/", "//", "/.", "/..%2f..%2fetc%2fpasswd", "/%00", "/%ff%fe", "/%", "/%zz", "/\u00e9"),
    *("/v2/models", "/v2/models/%2e%2e/infer", "/v2/models//infer", "/v2/models/stats/infer"),
    *("/score/..%2f..", "/score/a/b", "/v2/repository", "/v2/repository/models/../load"),
    *("/v2/repository/index", "/v2/health/ready", "/metrics", "/openapi.json", "/" + "a" * 5000),
)
VERSIONS = ("0", "-1", "1.0", "x", "%31", "9" * 5000, "\u0661", "")
TOKENS = (
    "",
    "Bearer",
    "Bearer s3cret",
    "Bearer ",
    "Bearer wrong",
    "Basic s3cret",
    "Bearer \u00e9",
    "Bearer \ufffd",
)
_HOLE = "\x1aHOLE\x1a"


_HEAD = b"HTTP/1.1\r\nhost: x\r\n"
_SCORE, _LIVE = b"POST /score " + _HEAD, b"GET /v2/health/live " + _HEAD
_CHUNKED = _SCORE + b"transfer-encoding: chunked\r\n\r\n"
WIRE: Mapping[str, bytes] = {
    "bytes that are no text": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path that is no text": b"GET /\xff " + _HEAD + b"\r\n",
    "a star": b"OPTIONS * " + _HEAD + b"\r\n",
    "a tunnel": b"CONNECT x:80 " + _HEAD + b"\r\n",
    "a header that is no text": _SCORE + b"content-encoding: \xff\r\ncontent-length: 2\r\n\r\n{}",
    "a header with a zero": _LIVE + b"x: \x00\r\n\r\n",
    "a huge header": _LIVE + b"x: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "many headers": _LIVE + b"x: a\r\n" * 5000 + b"\r\n",
    "a negative length": _SCORE + b"content-length: -5\r\n\r\n{}",
    "two lengths": _SCORE + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "a length that nothing has": _SCORE + b"content-length: 99999999999999\r\n\r\n",
    "a length and chunks": _CHUNKED.replace(
        b"\r\n\r\n", b"\r\ncontent-length: 9\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk of no size": _CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk without an end": _CHUNKED + b"2\r\n{}xx0\r\n\r\n",
    "an upgrade": _LIVE + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
}
"""What is wrong -> bytes that are refused, or the connection is closed, before any body is due."""
UNFINISHED: Mapping[str, bytes] = {
    "half a head": b"GET /v2/health/live HTTP/1.1\r\nho",
    "half a body": _SCORE + b"content-length: 100\r\n\r\n{",
    "half a chunk": _CHUNKED + b"ff\r\n{}",
    "a chunk without end": _CHUNKED + b"ffffffffffffff\r\n{}",
    "nothing after the promise": _SCORE + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n",
}
"""What is missing -> bytes after which the server waits until the time is up."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def wire(self, *extra: str) -> bytes:
        """Return the request as HTTP/1.1, with its length."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: x", *extra]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"content-length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body


@dataclass(frozen=True, slots=True)
class Example:
    """What a model takes: a row for `/score`, and the same rows as tensors by name."""

    name: str
    row: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    def score(self, rows: int = 0) -> Sent:
        """Return a request that scores the row, or a list of it so many times."""
        value = [self.row] * rows if rows else self.row
        return Sent("POST", f"/score/{self.name}", json.dumps(value).encode())

    def infer(self, *, binary: bool, **more: Any) -> Sent:
        """Return a request of the Open Inference Protocol; `more` stands beside its inputs."""
        head, tail = self.described(binary=binary)
        return sealed(self.name, json.dumps({**more, **head}).encode(), tail)

    def described(self, *, binary: bool) -> tuple[dict[str, Any], bytes]:
        """Return the inputs as the protocol describes them, and the bytes behind the JSON."""
        inputs: list[dict[str, Any]] = []
        for name, values in self.tensors.items():
            kind = "FP32" if values.dtype == np.float32 else "INT64"
            tensor = {"name": name, "datatype": kind, "shape": list(values.shape)}
            if binary:
                tensor["parameters"] = {"binary_data_size": values.nbytes}
            else:
                tensor["data"] = values.ravel().tolist()
            inputs.append(tensor)
        tail = b"".join(values.tobytes() for values in self.tensors.values()) if binary else b""
        return {"inputs": inputs}, tail


def sealed(name: str, head: bytes, tail: bytes) -> Sent:
    """Return an inference request of JSON and the bytes behind it."""
    headers = {HEADER_LENGTH: str(len(head))} if tail else {}
    return Sent("POST", f"/v2/models/{name}/infer", head + tail, headers)


class Mutants:
    """Damaged requests by their numbers.

    Args:
        examples: Of the models.
        seed: Of the damage.

    """

    def __init__(self, examples: Sequence[Example], seed: int):
        self._examples, self._seed = examples, seed

    def __getitem__(self, index: int) -> Sent:
        rng = random.Random(f"{self._seed}-{index}")
        example = rng.choice(self._examples)
        if rng.random() < 0.4:
            sent = replace(example.score(), body=_json(rng, _rows(rng, example)))
        else:
            head, tail = example.described(binary=rng.random() < 0.6)
            sent = _infer(rng, example.name, head, tail)
        while rng.random() < 0.35:
            sent = replace(sent, body=rng.choice(_BYTEWISE)(rng, sent.body))
        for chance, change in ((0.15, _compressed), (0.12, _elsewhere), (0.08, _lengths)):
            if rng.random() < chance:
                sent = change(rng, sent)
        if rng.random() < 0.03:
            return replace(sent, headers={**sent.headers, "authorization": rng.choice(TOKENS)})
        return sent


def _rows(rng: random.Random, example: Example) -> Any:
    row = dict(example.row)
    many = [dict(row) for _ in range(rng.choice((1, 2, 70)))]
    return rng.choice([row, row, many, {"rows": many}])


def _infer(rng: random.Random, name: str, head: dict[str, Any], tail: bytes) -> Sent:
    outputs = [{"name": rng.choice(["scores", "logits", "x"])} for _ in range(rng.randrange(3))]
    if outputs and rng.random() < 0.5:
        outputs[0]["parameters"] = {"binary_data": rng.random() < 0.5}  # pyright: ignore
    value = {"id": rng.choice(["", "7", "\ud800", "x" * 3000]), **head, "outputs": outputs}
    if tail and rng.random() < 0.4:
        at = rng.randrange(len(tail))
        number = rng.choice((b"\xff" * 8, b"\x00\x00\xc0\x7f", b"\xff" * 4, b"\x00" * 7 + b"\x80"))
        tail = tail[:at] + number + tail[at + len(number) :]
    return sealed(
        name, _json(rng, value) if rng.random() < 0.7 else json.dumps(value).encode(), tail
    )


def _json(rng: random.Random, value: Any) -> bytes:
    """Return JSON with one to three of its values replaced, dropped, doubled or renamed."""
    holes: list[bytes] = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        value = _changed(rng, value, holes)
    text = json.dumps(value).encode()
    hole = json.dumps(_HOLE).encode()
    for filling in holes:
        text = text.replace(hole, filling, 1)
    # Of what was repeated since.
    return text.replace(hole, holes[0]) if holes else text


def _changed(rng: random.Random, value: Any, holes: list[bytes]) -> Any:
    """Return a value with one change somewhere in it; what goes into holes is appended to them."""
    inner = isinstance(value, dict | list) and value
    if not inner or rng.random() < 0.15:
        holes.append(rng.choice(VALUES))
        return _HOLE
    if isinstance(value, list):
        return _list(rng, value, holes)
    return _object(rng, value, holes)


def _list(rng: random.Random, value: list[Any], holes: list[bytes]) -> list[Any]:
    at = rng.randrange(len(value))
    match rng.randrange(6):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value[: at + 1] * rng.choice((2, 3, 100))
    return [*value[:at], _changed(rng, value[at], holes), *value[at + 1 :]]


def _object(rng: random.Random, value: dict[str, Any], holes: list[bytes]) -> dict[str, Any]:
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {name: part for name, part in value.items() if name != key}
        case 1:
            return {**value, rng.choice(["", "x", "\ud800", "__class__", key * 50]): value[key]}
        case 2:
            # A key twice: the text of another pair stands where a value does.
            holes.append(json.dumps(value[key]).encode() + b"," + json.dumps(key).encode() + b":1")
            return {**value, key: _HOLE}
    return {**value, key: _changed(rng, value[key], holes)}


def _flipped(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return rng.choice([body[:at], body[at:]])


def _pasted(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice([*VALUES, *BYTES]) + body[at + rng.randrange(4) :]


def _repeated(rng: random.Random, body: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    return body[:last] + body[first:last] * rng.choice((1, 2, 30)) + body[last:]


_BYTEWISE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flipped,
    _cut,
    _pasted,
    _repeated,
)


def _compressed(rng: random.Random, sent: Sent) -> Sent:
    encoding = rng.choice(("gzip", "deflate", "br", "GZIP", "identity", "gzip, gzip", "\u00e9"))
    packed = sent.body
    if rng.random() < 0.9:
        packed = (
            gzip.compress(packed, 1) if "gzip" in encoding.lower() else zlib.compress(packed, 1)
        )
    match rng.randrange(6):
        case 0:
            packed = _flipped(rng, packed)
        case 1:
            packed = _cut(rng, packed)
        case 2:
            # A bomb: a thousandth of what it becomes.
            packed = zlib.compress(b"[" * rng.choice((1 << 16, 1 << 22)), 1)
    return replace(sent, body=packed, headers={**sent.headers, "content-encoding": encoding})


def _elsewhere(rng: random.Random, sent: Sent) -> Sent:
    match rng.randrange(4):
        case 0:
            path = rng.choice(PATHS)
        case 1:
            path = sent.path.replace("/infer", f"/versions/{rng.choice(VERSIONS)}/infer")
        case 2:
            at = rng.randrange(1, len(sent.path))
            path = (
                sent.path[:at] + rng.choice(("%2f", "%00", "/", "..", "%ff", "?")) + sent.path[at:]
            )
        case _:
            return replace(
                sent, method=rng.choice(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "X"))
            )
    return replace(sent, path=path)


def _lengths(rng: random.Random, sent: Sent) -> Sent:
    near = str(len(sent.body) + rng.randint(-20, 1))
    return replace(sent, headers={**sent.headers, HEADER_LENGTH: rng.choice([*LENGTHS, near])})
