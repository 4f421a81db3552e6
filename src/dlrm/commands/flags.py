"""Command-line flags, derived from the signature or the fields of what they call."""

import io
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from dlrm.commands.help import short_help, unknown_flag

T = TypeVar("T")

Data = Annotated[
    Any,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="DATA",
        instance_from_str=lambda words: words[0],
        is_instance=lambda _: True,
        str_from_instance=lambda data: [str(data)],
    ),
]
"""Data of a command: on the command line a word, in Python a path or a frame too."""

Names = Annotated[
    Sequence[str],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda words: [w.strip() for w in words[0].split(",") if w.strip()],
        is_instance=lambda _: True,
        str_from_instance=lambda names: [",".join(map(str, names))],
    ),
]
"""Several names: on the command line one word with commas."""

Counts = Annotated[
    Sequence[int],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N,N,...",
        # What is no number is none that a command takes: it says so.
        instance_from_str=lambda words: [
            int(word) if word.strip().isdecimal() else 0 for word in words[0].split(",")
        ],
        is_instance=lambda _: True,
        str_from_instance=lambda counts: [",".join(map(str, counts))],
    ),
]
"""Several whole numbers: on the command line one word with commas."""

Folder = Annotated[Path | str | None, tyro.conf.arg(metavar="PATH")]
"""A folder; None for one that the command names itself."""

RUN = ("recipe", "name", "config", "data", "label", "schema", "model")
"""Parameters by which a call from Python says which run it is about."""

_MARKERS = (tyro.conf.AvoidSubcommands,)


def parse(target: Callable[..., T], words: list[str], prog: str) -> T:
    """Call a function from command-line words.

    A wrong command line ends the process with status 2, after saying what was expected.

    Args:
        target: A function with typed parameters.
        words: The words after the command.
        prog: The command, for help and errors.

    """
    hints = get_type_hints(target, include_extras=True)
    flags = [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature(target).parameters.items()
    ]
    return target(**_arguments(flags, target.__doc__, words, prog))


def parse_with_config(
    function: Callable[..., Any], config: T, words: list[str], prog: str, **defaults: Any
) -> tuple[T, dict[str, Any]]:
    """Return the config and the other arguments that words give to a function that takes a run.

    Its parameters that say which run (`RUN`) are not flags: those of the config stand for them.

    Args:
        function: What is called from Python; its signature and docstring give the flags.
        config: From which the flags start.
        words: The words after the command, without its first one.
        prog: The command, for help and errors.
        **defaults: Of the function's arguments, in place of its own.

    """
    hints = get_type_hints(function, include_extras=True)
    whole = Annotated[type(config), tyro.conf.arg(name="")]
    flags = [Parameter("config", Parameter.KEYWORD_ONLY, default=config, annotation=whole)]
    flags += [
        parameter.replace(annotation=hints[name], default=defaults.get(name, parameter.default))
        for name, parameter in signature(function).parameters.items()
        if name not in RUN and parameter.kind is not Parameter.VAR_KEYWORD
    ]

    arguments = _arguments(flags, function.__doc__, words, prog)
    return arguments.pop("config"), arguments


def _arguments(
    flags: list[Parameter], doc: str | None, words: list[str], prog: str
) -> dict[str, Any]:
    """Return the values of parameters that words give, by name; see `parse`.

    Args:
        flags: The parameters.
        doc: A docstring that says what they are.
        words: The words after the command.
        prog: The command.

    """

    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    described: Any = given
    described.__signature__ = Signature(flags)
    described.__annotations__ = {flag.name: flag.annotation for flag in flags}
    described.__doc__ = doc
    settings: Any = {"prog": prog, "config": _MARKERS}
    with warnings.catch_warnings():
        # A model of one's own is none of the catalogue's union; its flags are its own.
        warnings.filterwarnings("ignore", message=".*does not match any type in Union.*")
        # The one public way to see the flags of a command.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        if "--help-all" in words:
            with suppress(SystemExit):
                tyro.cli(described, args=["--help"], **settings)
            print("Every command also takes --json and --debug: see dlrm --help.")
            raise SystemExit(0)
        asked = bool({"-h", "--help"} & set(words))
        if not asked:
            # Only what is said of wrong words needs the text about every flag, which takes longer
            # to make than all else here.
            unsaid = io.StringIO()
            with suppress(SystemExit), redirect_stdout(unsaid), redirect_stderr(unsaid):
                return tyro.cli(described, args=words, console_outputs=False, **settings)
        parser: Any = tyro.extras.get_parser(described, **settings)
        if asked:
            print(short_help(parser, prog))
            raise SystemExit(0)
        if message := unknown_flag(words, parser, prog):
            print(f"dlrm: error: {message}", file=sys.stderr)
            raise SystemExit(2)
        return tyro.cli(described, args=words, **settings)


def take_value(words: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from the words and return the value."""
    for position, word in enumerate(words):
        if word.startswith(f"{name}="):
            return words.pop(position).partition("=")[2]
        if word == name and position + 1 < len(words):
            del words[position]
            return words.pop(position)
    return None
