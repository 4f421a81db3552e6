"""Catalogues: what has a short name, and `module:name` for what has none."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from dlrm.errors import ConfigError, unknown

T = TypeVar("T")


def find(kind: str, name: str, catalogue: Mapping[str, T]) -> T | Any:
    """Return what a catalogue has under a name, or what `module:name` names in a module.

    The module can be imported, or lies in the current folder.

    Raises:
        ConfigError: There is no such thing; lists the choices, with the `kind` of thing.

    """
    if name in catalogue:
        return catalogue[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown(kind, name, [*catalogue, "module:name"])
    try:
        with _current_folder(module):
            return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{kind} {name}: {error}") from error


@contextmanager
def _current_folder(module: str) -> Iterator[None]:
    """Look for modules in the current folder too, last so that nothing there hides a package.

    Only within the block, unless the module lies there: it may import its neighbours later, and
    whoever named it runs what is in the folder.
    """
    folder = str(Path.cwd())
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        top = module.partition(".")[0]
        file = getattr(sys.modules.get(top), "__file__", None)
        if file not in (f"{folder}/{top}.py", f"{folder}/{top}/__init__.py"):
            # A module may have put other folders behind it, or it once more, on purpose.
            sys.path.remove(folder)
