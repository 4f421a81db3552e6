"""Dataclasses that are kept as JSON and read again with distrust."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints


class Record:
    """The base of a dataclass of what JSON can hold: numbers, texts, tuples, dicts, records."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields JSON-ready; keys of dicts become text."""
        record: Any = self
        return json.loads(json.dumps(asdict(record)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was made of; keys that are no field are passed over.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.

        """
        return _read(cls, values)


def _read(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        named: Any = hint
        return named(
            **{
                field.name: _read(hints[field.name], value[field.name])
                for field in fields(hint)
                if field.default is MISSING or field.name in value
            }
        )
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple(_read(arguments[0], part) for part in value)
    if get_origin(hint) is dict:
        return {arguments[0](key): _read(arguments[1], part) for key, part in value.items()}
    if NoneType in arguments:
        return None if value is None else _read(arguments[0], value)
    return hint(value)
