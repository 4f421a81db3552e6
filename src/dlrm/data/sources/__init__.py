"""Where raw rows come from, as frames; a source says its columns where its format does."""

from collections.abc import Mapping
from typing import Any

from dlrm.catalogue import find as find_in

SOURCES: Mapping[str, str] = {
    "criteo": "dlrm.data.sources.criteo:CriteoSource",
    "table": "dlrm.data.sources.table_files:TableFiles",
}
"""The sources of raw files by name, as `module:name`; each is called with the files and `bad_rows`,
which is `error` or `skip`."""


def find(name: str) -> Any:
    """Return what makes a source of raw files: of the catalogue, or `module:name` of one's own.

    Raises:
        ConfigError: There is no such source; lists the choices.

    """
    place = SOURCES.get(name) or find_in("source", name, SOURCES)
    return find_in("source", place, {}) if isinstance(place, str) else place
