"""Command-line flags, derived from the signature or the fields of what they call."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

T = TypeVar("T")

_MARKERS = (tyro.conf.AvoidSubcommands,)


def parse(target: Callable[..., T], words: list[str], prog: str, default: T | None = None) -> T:
    """Call a function, or fill a dataclass, from command-line words.

    A wrong command line ends the process with status 2, after saying what was expected.

    Args:
        target: A function with typed parameters, or a dataclass.
        words: The words after the command.
        prog: The command, for help and errors.
        default: An instance of the dataclass whose values are the defaults.

    """
    defaults: dict[str, Any] = {} if default is None else {"default": default}
    try:
        return tyro.cli(target, prog=prog, args=words, config=_MARKERS, **defaults)
    except SystemExit as stop:
        if stop.code == 2:
            parser = tyro.extras.get_parser(target, prog=prog, config=_MARKERS)
            flags = sorted(
                flag
                for action in parser._actions
                for flag in action.option_strings
                if flag.startswith("--")
            )
            print(f"Flags of {prog}: {', '.join(flags)}, --json, --debug", file=sys.stderr)
        raise
