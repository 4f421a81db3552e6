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


GENERATED: Mapping[str, tuple[str, str]] = {
    "clicks": ("dlrm.data.sources.clicks:ClicksSource", "clicks, clicks:ROWS or clicks:ROWS:SEED"),
    "trace": ("dlrm.data.sources.traffic:traffic_source", "trace:WORKLOAD[:ROWS[:SEED]]"),
}
"""The sources without files by name: what makes one, called with the numbers behind the name,
`rows` and `seed`, and before them what else stands there; and what is expected behind the name."""


def find(name: str) -> Any:
    """Return what makes a source of raw files: of the catalogue, or `module:name` of one's own.

    Raises:
        ConfigError: There is no such source; lists the choices.

    """
    return find_in("source", SOURCES.get(name, name), SOURCES)


def generated(data: str) -> Any:
    """Return the generated log that `NAME[:ROWS[:SEED]]` asks for; None for any other name.

    Raises:
        ConfigError: Something else stands behind the name.

    """
    name, *words = data.split(":")
    if name not in GENERATED:
        return None
    place, expected = GENERATED[name]
    numbers: list[int] = []
    while words and words[-1].isdecimal() and len(numbers) < 2:
        numbers.insert(0, int(words.pop()))
    what = (":".join(words),) if words else ()
    if bool(any(what)) != ("WORKLOAD" in expected):
        raise ConfigError(f'data is "{data}", expected {expected}')
    settings = dict(zip(("rows", "seed"), numbers, strict=False))
    return find_in("source", place, {})(*what, **settings)
