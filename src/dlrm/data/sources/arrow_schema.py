"""Which columns of a Parquet file were dictionaries, that is categories, where it was written.

Polars reads dictionaries of texts as categories, but those of numbers as numbers. Arrow's writers
keep their schema in the file's metadata: a FlatBuffer (`Message.fbs` and `Schema.fbs` of Arrow).
"""

import base64
import struct
from pathlib import Path

import polars as pl

_KEY = "ARROW:schema"
_PREFIX_BYTES = 8
"""Bytes before a message: a mark and its length."""
_HEADER, _FIELDS, _NAME, _DICTIONARY = 2, 1, 0, 4
"""Places of what is needed among the entries of a message, a schema and a field."""


def dictionaries(file: Path) -> frozenset[str]:
    """Return the columns that are dictionaries; none where the file does not say it."""
    try:
        encoded = pl.read_parquet_metadata(file).get(_KEY)
        if encoded is None:
            return frozenset()
        message = base64.b64decode(encoded)[_PREFIX_BYTES:]
        schema = _target(message, _entry(message, _target(message, 0), _HEADER))
        fields = _target(message, _entry(message, schema, _FIELDS))
        places = (fields + 4 * number for number in range(1, _uint(message, fields) + 1))
        tables = [_target(message, place) for place in places]
        return frozenset(
            _text(message, _entry(message, table, _NAME))
            for table in tables
            if _entry(message, table, _DICTIONARY)
        )
    except (ValueError, struct.error, pl.exceptions.PolarsError, OSError):
        # The rows are read nevertheless, or say what is wrong.
        return frozenset()


def _uint(message: bytes, place: int) -> int:
    return struct.unpack_from("<I", message, place)[0]


def _target(message: bytes, place: int) -> int:
    return place + _uint(message, place)


def _entry(message: bytes, table: int, number: int) -> int:
    """Return where an entry of a table is; 0 where it has none."""
    entries = table - struct.unpack_from("<i", message, table)[0]
    size = struct.unpack_from("<H", message, entries)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", message, entries + at)[0] if at < size else 0
    return table + offset if offset else 0


def _text(message: bytes, place: int) -> str:
    start = _target(message, place)
    return message[start + 4 : start + 4 + _uint(message, start)].decode()
