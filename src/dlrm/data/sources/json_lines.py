"""JSON lines: an object a line, whose keys are the columns; what an object lacks is missing."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from dlrm.data.sources.parts import Part, line_of
from dlrm.data.sources.records import Fault
from dlrm.data.sources.source import OnBadRow
from dlrm.data.sources.text import explained, open_bytes, text_name
from dlrm.errors import InputError

_SUFFIXES = (".jsonl", ".ndjson")
_CHUNK_BYTES = 8 << 20


def is_json(head: str, file: Path) -> bool:
    """Whether a text is JSON lines, by its name or its first line."""
    first = head.lstrip()[:1]
    name = text_name(file)
    if first == "[" and (
        name.endswith((".json", *_SUFFIXES)) or head.lstrip("[ \t\r\n")[:1] == "{"
    ):
        problem = "is a JSON array, expected an object a line: jq -c '.[]' OLD > NEW.jsonl"
        raise InputError(problem, file=file, line=1)
    if name.endswith(_SUFFIXES):
        return True
    try:
        return first == "{" and isinstance(json.loads(head.lstrip().split("\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        if name.endswith(".json"):
            problem = "is JSON, but no object a line: jq -c . OLD > NEW.jsonl"
            raise InputError(problem, file=file, line=1) from None
        return False


def _chunks(file: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield some megabytes of lines at a time, and the number of the first."""
    number = 1
    with explained(file, lambda: number), open_bytes(file) as stream:
        while lines := stream.readlines(_CHUNK_BYTES):
            if number == 1:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            yield number, lines
            number += len(lines)


def _lines(file: Path) -> Iterator[int]:
    """Yield the line of each object of a file."""
    for number, lines in _chunks(file):
        yield from (number + place for place, line in enumerate(lines) if line.strip())


def parts(file: Path, on_bad_row: OnBadRow) -> Iterator[Part]:
    """Yield the rows of a file, in memory; a part may lack columns.

    Raises:
        InputError: A line is no object; names it.

    """
    place, first = line_of(_lines(file)), 1
    for number, lines in _chunks(file):
        faults: list[Fault] = []
        try:
            frame = pl.read_ndjson(io.BytesIO(b"".join(lines)), infer_schema_length=None)
            if frame.height != sum(not line.isspace() for line in lines):
                raise pl.exceptions.ComputeError("other rows than lines")
        except pl.exceptions.PolarsError:
            frame, faults = _one_by_one(file, number, lines, on_bad_row)
        part = Part(frame, frame.height, file, first, line_of=place, sparse=True)
        yield replace(part, faults=tuple(faults))
        first += part.rows + len(faults)


def _one_by_one(
    file: Path, number: int, lines: list[bytes], on_bad_row: OnBadRow
) -> tuple[pl.DataFrame, list[Fault]]:
    objects, faults = list[tuple[int, dict[str, Any]]](), list[Fault]()
    for line, raw in enumerate(lines, start=number):
        if raw.isspace():
            continue
        try:
            value = json.loads(raw)
            if not isinstance(value, dict):
                raise ValueError("expected an object, {...}")
            objects.append((line, {key: _plain(entry) for key, entry in value.items()}))
        except (ValueError, RecursionError) as problem:
            error = InputError(f"is no JSON object: {problem}", file=file, line=line)
            if on_bad_row == "error":
                raise error from None
            faults.append(Fault(len(objects) + len(faults), "no JSON object", error))
    names = dict.fromkeys(key for _, row in objects for key in row)
    return pl.DataFrame([_column(file, name, objects) for name in names]), faults


def _column(file: Path, name: str, objects: list[tuple[int, dict[str, Any]]]) -> pl.Series:
    """Return a column whose values may be numbers, truths and texts: texts then."""
    known = [(line, row[name]) for line, row in objects if row.get(name) is not None]
    nested = [isinstance(value, list | dict) for _, value in known]
    if len(set(nested)) > 1:
        line, value = known[nested.index(not nested[0])]
        problem = f"is {json.dumps(value)[:60]}, but {json.dumps(known[0][1])[:60]} above"
        raise InputError(problem, file=file, line=line, column=name)
    values = [row.get(name) for _, row in objects]
    if {type(value) for _, value in known} > {bool}:
        values = [json.dumps(value) if isinstance(value, bool) else value for value in values]
    return pl.Series(name, values, strict=False)


def _plain(value: object) -> object:
    return None if value != value else value  # noqa: PLR0124 - JSON's NaN, as Python writes it
