"""Catalogues: what has a short name, and `module:name` for what has none."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from dlrm.errors import ConfigError, unknown

T = TypeVar("T")


def find(kind: str, name: str, catalogue: Mapping[str, T]) -> T | Any:
    """Return what a catalogue has under a name, or what `module:name` names in a module.

    Args:
        kind: What the catalogue lists, for messages, e.g. `optimizer`.
        name: A key of the catalogue, or `module:name` with a module that can be imported or lies in
            the current folder.
        catalogue: Short name -> what it stands for.

    Raises:
        ConfigError: There is no such thing; lists the choices.

    """
    if name in catalogue:
        return catalogue[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown(kind, name, [*catalogue, "module:name"])
    # As of `python -m`, last so that nothing there hides a package.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{kind} {name}: {error}") from error
