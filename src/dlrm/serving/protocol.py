"""Bodies of the Open Inference Protocol v2: JSON, and the extension that puts tensors behind it.

    request   {"id", "inputs": [{"name", "datatype", "shape", "data"}], "outputs": [{"name"}]}
    response  {"model_name", "model_version", "id", "outputs": [...]}

Where the header `Inference-Header-Content-Length` says how long the JSON is, tensors without "data"
follow it in their order, of `binary_data_size` bytes each. What is parsed here comes from anybody:
whatever it is, the outcome is a request or a RefusalError.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.serving.layout import Layout
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.signature import Signature

HEADER_LENGTH = "inference-header-content-length"
_JSON = ("content-type", "application/json")
_MOST_DIGITS = 12
_MOST_HEAD, _MOST_LAYOUTS = 4096, 256
"""Bytes of the JSON of a request, and so many of them, whose layout is remembered."""
_USUAL = {"dense": np.dtype("<f4"), "ids": np.dtype("<i8")}
"""Types of the inputs of a request whose layout is remembered."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for an inference."""

    id: str
    tensors: Mapping[str, NDArray[Any]]
    """The inputs by name, in their shapes."""
    outputs: Mapping[str, bool]
    """Name of an output that is wanted -> whether as binary data."""
    places: Mapping[str, int]
    """Where the inputs that are binary data begin in the body."""


Answer = Callable[[Mapping[str, NDArray[np.float32]]], tuple[list[tuple[str, str]], bytes]]
"""Makes headers and body of the response to a request from the outputs (B, K), by name."""


def decompressed(body: bytes, encoding: str, limits: Limits) -> bytes:
    """Return a body as it was before its client compressed it, with gzip or deflate.

    Raises:
        RefusalError: It is damaged, too large, or compressed in another way.

    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise RefusalError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "the body is compressed, with neither gzip nor deflate",
        )
    # 32 more bits of window: either header.
    unpacked = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        whole = unpacked.decompress(body, limits.body_bytes + 1)
    except zlib.error:
        raise bad(f"the body is no {encoding}") from None
    limits.check_body(len(whole))
    if not unpacked.eof:
        raise bad(f"the body is {encoding} that ends too early")
    return whole


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text, in which NaN and infinity are errors.

    Raises:
        RefusalError: It is none.

    """
    with json_errors():
        return DECODER.decode(text_of(body))


def text_of(body: bytes) -> str:
    """Return the text of a body; a ValueError where it is none."""
    return body.decode(json.detect_encoding(body), "surrogatepass")


@contextmanager
def json_errors() -> Iterator[None]:
    """Refuse a body whose JSON is read within, and is none."""
    try:
        yield
    except RecursionError:
        raise bad("the body is nested too deep") from None
    except ValueError as reason:
        raise bad(f"the body is not JSON ({reason})") from None


def parse_infer(body: bytes, header_length: str | None, signature: Signature) -> InferRequest:
    """Return what the body of an inference request asks for.

    Args:
        body: JSON, and what lies behind it.
        header_length: Bytes of the JSON, as the request's header says them; None for all.
        signature: Of the model.

    Raises:
        RefusalError: It is no such request; says what is wrong, and where.

    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    fields = _object(parse_json(body[:length]), "the request")
    parameters = _object(fields.get("parameters", {}), "parameters")
    name = fields.get("id", "")
    if not isinstance(name, str):
        raise bad("id is no text")
    tensors: dict[str, NDArray[Any]] = {}
    places: dict[str, int] = {}
    for item in _list(fields.get("inputs"), "inputs"):
        tensor = _object(item, "an input")
        called = _name(tensor, "input")
        if called in tensors:
            raise bad(f'the input "{called}" is there twice')
        if tensor.get("data") is None:
            places[called] = length
        tensors[called], length = _tensor(tensor, called, body, length, signature)
    if length != len(body):
        raise bad(f"{len(body) - length} bytes behind the JSON belong to no input")
    return InferRequest(name, tensors, _outputs(fields, parameters, signature), places)


def read_infer(
    body: bytes,
    header_length: str | None,
    model: Mapping[str, str],
    signature: Signature,
    limits: Limits,
) -> tuple[Encoded, Answer]:
    """Return the rows of an inference request, and what makes its response.

    Whether the ids are in range is for the model to say, and for the batcher, whether the dense
    inputs are finite.

    Args:
        body: See `parse_infer`; so is header_length.
        header_length: Bytes of the JSON.
        model: What the response says of the model.
        signature: Of the model.
        limits: Of the server.

    Raises:
        RefusalError: As of `parse_infer` and `Signature.encoded`.

    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    text, layouts = body[:length], signature.layouts
    if (layout := layouts.get(text)) is not None and layout.body_bytes == len(body):
        return layout.encoded(body), layout.answer
    asked = parse_infer(body, header_length, signature)
    encoded = signature.encoded(asked.tensors, limits)
    if asked.id:
        # It differs from request to request.
        return encoded, partial(encode_infer, {**model, "id": asked.id}, wanted=asked.outputs)
    if length <= _MOST_HEAD:
        layout = _layout(asked, encoded, model, signature.schema.num_labels, body)
        if layout is not None:
            if len(layouts) >= _MOST_LAYOUTS:
                layouts.clear()
            layouts[text] = layout
    return encoded, partial(encode_infer, model, wanted=asked.outputs)


def _layout(
    asked: InferRequest, encoded: Encoded, model: Mapping[str, str], labels: int, body: bytes
) -> Layout | None:
    """Return the layout of a request; None where not all that differs is of the usual types."""
    usual = all(
        name in asked.places and tensor.dtype == _USUAL.get(name)
        for name, tensor in asked.tensors.items()
    )
    if not usual or not all(asked.outputs.values()):
        return None
    arrays = {"dense": encoded.dense, "ids": encoded.ids}
    places: dict[str, Any] = {
        name: (array.shape, _USUAL[name], asked.places[name]) if name in asked.places else array
        for name, array in arrays.items()
    }
    zeros = np.zeros((len(encoded), labels), np.float32)
    headers, answer = encode_infer(model, dict.fromkeys(asked.outputs, zeros), asked.outputs)
    return Layout(
        body_bytes=len(body),
        outputs=tuple(asked.outputs),
        headers=headers,
        head=answer[: int(dict(headers)[HEADER_LENGTH])],
        **places,
    )


def encode_infer(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[np.float32]], wanted: Mapping[str, bool]
) -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and body of the response to an inference request.

    Args:
        head: What stands before the outputs.
        outputs: (B, K) each, by name.
        wanted: As in the request.

    """
    described, binaries = [], []
    for name, binary in wanted.items():
        values = outputs[name]
        tensor = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if binary:
            binaries.append(np.ascontiguousarray(values, "<f4").tobytes())
            tensor["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            # JSON has no NaN.
            numbers = values.ravel().tolist()
            finite = bool(np.isfinite(values).all())
            tensor["data"] = (
                numbers if finite else [x if abs(x) < np.inf else None for x in numbers]
            )
        described.append(tensor)
    text = _ENCODER.encode({**head, "outputs": described}).encode()
    if not binaries:
        return [_JSON], text
    headers = [("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(text)))]
    return headers, b"".join([text, *binaries])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
"""Reads JSON, in which NaN and infinity are errors."""
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _length(text: str, most: int) -> int:
    if not (
        text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) <= most
    ):
        raise bad(f"Inference-Header-Content-Length is no length of a body of {most} bytes")
    return int(text)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{what} is no JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad(f"{what} is no list")
    return value


def _name(tensor: Mapping[str, Any], what: str) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise bad(f"an {what} has no name")
    return name


def _outputs(
    fields: Mapping[str, Any], parameters: Mapping[str, Any], signature: Signature
) -> dict[str, bool]:
    """Return which outputs are wanted, and how; all where none is named."""
    known, by_default = signature.outputs, parameters.get("binary_data_output") is True
    wanted: dict[str, bool] = {}
    for item in _list(fields.get("outputs", []), "outputs"):
        output = _object(item, "an output")
        name = _name(output, "output")
        if name not in known:
            raise bad(f'unknown output "{name}"; the model gives {", ".join(known)}')
        options = _object(output.get("parameters", {}), f"parameters of {name}")
        if options.get("classification") or options.get("shared_memory_region"):
            raise bad(f"{name}: neither classifications nor shared memory are given")
        wanted[name] = options.get("binary_data", by_default) is True
    return wanted or dict.fromkeys(known, by_default)


def _tensor(
    tensor: Mapping[str, Any], name: str, body: bytes, at: int, signature: Signature
) -> tuple[NDArray[Any], int]:
    """Return a tensor, and where the next one's binary data begin."""
    shape = _list(tensor.get("shape"), f"shape of {name}")
    count, dtype = signature.numbers(name, tensor.get("datatype"), shape, len(body))
    parameters = _object(tensor.get("parameters", {}), f"parameters of {name}")
    if "shared_memory_region" in parameters:
        raise bad(f"{name}: shared memory is not read")
    size = parameters.get("binary_data_size")
    if size is None:
        flat = _flat(tensor.get("data"), name, count, dtype)
    elif type(size) is not int or size != count * dtype.itemsize or size > len(body) - at:
        raise bad(
            f"{name}: binary_data_size must be {count * dtype.itemsize}, as shape and datatype "
            f"say, and {len(body) - at} bytes are left"
        )
    else:
        flat = np.frombuffer(body, dtype, count, at)
        at += size
    return flat.reshape(shape), at


def _flat(data: Any, name: str, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers of a tensor that stand in JSON, nested or not."""
    numbers = _list(data, f"data of {name}")
    while numbers and isinstance(numbers[0], list):
        if not all(isinstance(part, list) for part in numbers):
            raise bad(f"{name}: data holds numbers beside lists")
        numbers = [number for part in numbers for number in part]
    if len(numbers) != count:
        raise bad(f"{name}: data holds {len(numbers)} numbers, the shape says {count}")
    types = (int, float) if dtype.kind == "f" else (int,)
    if not all(type(number) in types for number in numbers):
        raise bad(f"{name}: data holds what is no {'number' if dtype.kind == 'f' else 'integer'}")
    try:
        # Too large for 32 bits is said of all floats in one place.
        wide = np.float64 if dtype.kind == "f" else dtype
        return np.array(numbers, wide)
    except OverflowError:
        raise bad(f"{name}: data holds a number that is too large") from None
