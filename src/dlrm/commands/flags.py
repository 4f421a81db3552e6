"""Command-line flags, derived from the signature or the fields of what they call."""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import tyro

T = TypeVar("T")

Data = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="DATA",
        instance_from_str=lambda words: words[0],
        is_instance=lambda _: True,
        str_from_instance=lambda data: [str(data)],
    ),
]
"""Data of a command: on the command line a word, in Python a path or a frame too."""

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

    def read(words: list[str]) -> T:
        with warnings.catch_warnings():
            # A model of one's own is none of the catalogue's union; its flags are its own.
            warnings.filterwarnings("ignore", message=".*does not match any type in Union.*")
            return tyro.cli(target, prog=prog, args=words, config=_MARKERS, **defaults)

    try:
        return read(words)
    except SystemExit as stop:
        if stop.code == 2:
            print(f"Flags of {prog}: {', '.join(_flags(read))}", file=sys.stderr)
        else:
            print("Every command also takes --json and --debug: see dlrm --help.")
        raise


def _flags(read: Callable[[list[str]], Any]) -> list[str]:
    """Return the flags that the help names."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        read(["--help"])
    # In the help a flag begins its line, behind the frame.
    return [
        *re.findall(r"^\W*(--[a-z][\w.-]*)", text.getvalue(), re.MULTILINE),
        "--json",
        "--debug",
    ]


def take_value(words: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from the words and return the value."""
    for position, word in enumerate(words):
        if word.startswith(f"{name}="):
            return words.pop(position).partition("=")[2]
        if word == name and position + 1 < len(words):
            del words[position]
            return words.pop(position)
    return None
