"""Bodies of `/score`: raw rows as JSON in, scores out.

    {"I1": 3, "C1": "68fd1e64"}    -> {"model", "version", "score": 0.08417948}
    [{...}, {...}], {"rows": ...}  -> {"model", "version", "scores": [0.08417948, 0.28922465]}

A score of several labels is an object, label by label. As text it is the shortest one of its 32
bits, as `dlrm predict` writes it.

A column that a row leaves out is missing there, as an empty cell of a table is.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import series_of
from dlrm.errors import DlrmError
from dlrm.schema import Schema
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.protocol import DECODER, json_errors, parse_json, text_of
from dlrm.training.predictor import Predictor

MOST_DEPTH, MOST_KEYS = 8, 256
"""Lists and objects in one another, and different keys of objects in a column, that are taken.

Polars' time doubles with each list around another, and grows with the square of the keys.
"""
LONG_BYTES = 64 << 10
"""Of a body from which on it is read row by row."""
_BEGIN = re.compile(r'[ \t\n\r]*(\{[ \t\n\r]*"rows"[ \t\n\r]*:[ \t\n\r]*)?\[[ \t\n\r]*(?=\{)')
_NEXT = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=\{)")
_END = re.compile(r"[ \t\n\r]*\][ \t\n\r]*")
_WRAPPED_END = re.compile(r"[ \t\n\r]*\][ \t\n\r]*\}[ \t\n\r]*")
Row = dict[str, Any]
"""A raw row: name of a column -> its value as JSON has it."""
_NO_COLUMN = (
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
    *(TypeError, ValueError, OverflowError, RecursionError),
)
"""What Polars raises at values that it has no type for."""


def parse_rows(body: bytes, limits: Limits) -> tuple[list[Row], bool]:
    """Return the rows of a request, and whether it is one row outside of a list.

    Raises:
        RefusalError: They are none, or too many.

    """
    if len(body) > LONG_BYTES and (rows := _one_by_one(body, limits)) is not None:
        return rows, False
    value = parse_json(body)
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        if len(value) > 1:
            raise bad('beside "rows" there is nothing else in a request')
        value = value["rows"]
    one = isinstance(value, dict)
    rows = [value] if one else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise bad('expected a row as a JSON object, a list of rows, or {"rows": [...]}')
    limits.check_rows(len(rows))
    return rows, one


def _one_by_one(body: bytes, limits: Limits) -> list[Row] | None:
    """Return the rows of a body that is a list of objects, alone or as "rows"; None of any other.

    While JSON is read no other thread goes on, so it is read row by row.
    """
    with json_errors():
        text = text_of(body)
        if (begin := _BEGIN.match(text)) is None:
            return None
        rows: list[Row] = []
        more: re.Match[str] | None = begin
        at = begin.end()
        while more is not None:
            row, at = DECODER.raw_decode(text, at)
            rows.append(row)
            if len(rows) > limits.rows:
                raise RefusalError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the request has more than {limits.rows} rows, the most that are taken: send "
                    "several",
                )
            more = _NEXT.match(text, at)
            at = at if more is None else more.end()
    end = _WRAPPED_END if begin[1] else _END
    return rows if end.fullmatch(text, at) else None


def encode_rows(rows: list[Row], predictor: Predictor) -> Encoded:
    """Return the rows of a request by the features of a run, which ignores other columns.

    Raises:
        RefusalError: No column of a row is known, a column is nested where it was not, or a number
            is none; names the column, and the row.

    """
    plain = _plain(rows, predictor)
    return _typed(rows, predictor) if plain is None else plain


def encode_together(
    requests: Sequence[list[Row]], predictor: Predictor
) -> Encoded | list[Encoded | Exception]:
    """Return the rows of requests, as one where each value can be read by itself.

    Otherwise each request's as `encode_rows` has them, or what is wrong with it.
    """
    with suppress(DlrmError):
        if (together := _plain([row for rows in requests for row in rows], predictor)) is not None:
            return together
    results: list[Encoded | Exception] = []
    for rows in requests:
        try:
            results.append(encode_rows(rows, predictor))
        except Exception as error:
            results.append(error)
    return results


def _plain(rows: Sequence[Row], predictor: Predictor) -> Encoded | None:
    """Return rows each of whose values is read by itself; None where one cannot be."""
    features = predictor.features
    for place, row in enumerate(rows):
        if row.keys().isdisjoint(features.needed):
            names = ", ".join(features.needed)
            raise bad(f"row {place + 1} has none of the columns that the model reads: {names}")
    plain = features.plain_rows(rows)
    return None if plain is None else features.encode(plain)


def _typed(rows: list[Row], predictor: Predictor) -> Encoded:
    """Return the rows of one request, whose columns are of the types that all its rows say."""
    features = predictor.features
    try:
        columns = [_column(name, [row.get(name) for row in rows]) for name in features.needed]
        return encode_frame(features, pl.DataFrame(columns))
    except DlrmError as error:
        raise bad(str(error).replace("the frame", "the request")) from None
    except _NO_COLUMN as error:
        raise bad(f"the rows hold a value that no column has ({type(error).__name__})") from None


def _column(name: str, values: list[Any]) -> pl.Series:
    """Return the values of a column, none of them nested without end."""
    nested = [value for value in values if isinstance(value, list | dict)]
    depth, keys = 0, set[str]()
    while nested:
        depth += 1
        inner: list[Any] = []
        for value in nested:
            if isinstance(value, dict):
                keys.update(value)
                inner += value.values()
            else:
                inner += value
        if depth > MOST_DEPTH or len(keys) > MOST_KEYS:
            raise bad(
                f"the request, column {name}: at most {MOST_DEPTH} lists or objects in one "
                f"another, and {MOST_KEYS} different keys, are taken"
            )
        nested = [value for value in inner if isinstance(value, list | dict)]
    return series_of(name, values)


def score_values(scores: NDArray[np.float32], schema: Schema) -> list[Any]:
    """Return the scores (n, K) of rows JSON-ready; None where one is no number."""
    texts = [[float(str(x)) if np.isfinite(x) else None for x in row] for row in scores]
    if schema.num_labels == 1:
        return [row[0] for row in texts]
    return [dict(zip(schema.labels, row, strict=True)) for row in texts]
