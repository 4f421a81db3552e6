"""Where raw rows come from, as frames; a source says its columns where its format does."""

from collections.abc import Mapping
from typing import Any

from dlrm.catalogue import find as find_in
from dlrm.errors import ConfigError

SOURCES: Mapping[str, str] = {
    "criteo": "dlrm.data.sources.criteo:CriteoSource",
    "table": "dlrm.data.sources.table_files:TableFiles",
}
"""The sources of raw files by name, as `module:name`; each is called with the files and `bad_rows`,
which is `error` or `skip`."""


GENERATED: Mapping[str, str] = {"clicks": "dlrm.data.sources.clicks:ClicksSource"}
"""The sources without files; each is called with the numbers behind its name, `rows` and `seed`."""


def find(name: str) -> Any:
    """Return what makes a source of raw files: of the catalogue, or `module:name` of one's own.

    Raises:
        ConfigError: There is no such source; lists the choices.

    """
    return find_in("source", SOURCES.get(name, name), SOURCES)


def generated(data: str) -> Any:
    """Return the generated log that `NAME[:ROWS[:SEED]]` asks for; None for any other name."""
    name, *numbers = data.split(":")
    if name not in GENERATED:
        return None
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f'data is "{data}", expected {name}, {name}:ROWS or {name}:ROWS:SEED')
    settings = dict(zip(("rows", "seed"), map(int, numbers), strict=False))
    return find_in("source", GENERATED[name], {})(**settings)
