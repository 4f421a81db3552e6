"""Help that fits two screens, and what to say of a flag that is none.

tyro derives the flags and prints all of them, for `--help-all`; from the same parser comes the
short list of those that people use.
"""

import argparse
import re
import textwrap
from dataclasses import fields
from difflib import get_close_matches

LINES, WIDTH = 48, 80
"""Two screens."""

ALWAYS = ("--help", "--help-all", "--json", "--debug")
"""Flags of every command, which the parsers know nothing about."""

_FIRST = (
    *("--data", "--label", "--task", "--positive", "--time", "--bad-rows", "--run", "--resume"),
    *("--epochs", "--optim.lr", "--features", "--schema", "--from", "--procs", "--group"),
    *("--optim.name", "--loader.batch-size", "--model.dim", "--ensemble", "--seed", "--device"),
    *("--threads", "--eval.patience", "--weight", "--split", "--category", "--missing"),
    *("--max-steps", "--eval.metric", "--precision"),
)
"""Flags of a config that people use, the most used first."""

_COLUMN = 25
_SENTENCE_END = re.compile(r"(?<=[\w)`\"'])(?<!e\.g)\. (?=[A-Z`\"])")
_NOTHING = ("None", "True", "False", "''", "")


def short_help(parser: argparse.ArgumentParser, prog: str) -> str:
    """Return help of at most two screens: what a command takes, and the flags that people use.

    Args:
        parser: The whole command line of the command.
        prog: The command.

    """
    # Lines that are indented are a list.
    about = re.sub(r"(?<!\n)\n(?![\n ])", " ", parser.description or "")
    head = [_usage(parser, prog), ""]
    for line in about.splitlines():
        head += textwrap.wrap(line, WIDTH) or [""]
    head.append("")
    actions = [action for action in parser._actions if action.dest != "help"]
    entries = [_entry(action) for action in actions]
    foot = ["", "Every command also takes --json and --debug."]
    room = LINES - len(head) - len(foot)
    if sum(map(len, entries)) > room:
        foot.append(f"All {len(actions)} flags: {prog} --help-all")
        room -= 1
        entries = _fitting([_entry(action, brief=True) for action in _people_s(actions)], room)
    return "\n".join([*head, *(line for entry in entries for line in entry), *foot])


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return all flags of a command, those that its description names included."""
    named = re.findall(r"`(--[a-z][\w.-]*)", parser.description or "")
    known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    return list(dict.fromkeys([*known, *named, *ALWAYS]))


def unknown_flag(words: list[str], parser: argparse.ArgumentParser, prog: str) -> str | None:
    """Return what to say of the first word that looks like a flag and is none; None without."""
    flags = flags_of(parser)
    for word in words:
        name = word.partition("=")[0]
        plain = name.replace("_", "-")
        if re.match(r"--[a-zA-Z]", name) and plain not in flags:
            near = get_close_matches(plain, flags, 3, 0.0)
            # The last part of a flag, such as --lr, is what people remember of it.
            ends = [flag for flag in flags if flag.endswith(f".{plain.removeprefix('--')}")]
            near = list(dict.fromkeys([*ends, *near]))[:3]
            return f'unknown flag "{name}"; nearest: {", ".join(near)}; see {prog} --help'
    return None


def _usage(parser: argparse.ArgumentParser, prog: str) -> str:
    needed = [_name(action) for action in parser._actions if _needed(action)]
    return " ".join(["usage:", prog, *needed, "[--FLAG VALUE ...]"])


def _needed(action: argparse.Action) -> bool:
    return not action.option_strings or action.required


def _people_s(actions: list[argparse.Action]) -> list[argparse.Action]:
    """Return what must be given, a command's own flags, and those of the config to know first."""
    from dlrm.training.config import TrainConfig

    of_config = {field.name for field in fields(TrainConfig)}

    def rank(action: argparse.Action) -> int | None:
        flags = action.option_strings
        if _needed(action):
            return -2
        if known := [_FIRST.index(flag) for flag in flags if flag in _FIRST]:
            return known[0]
        roots = {re.split(r"[.=]", flag[2:])[0].replace("-", "_") for flag in flags}
        return None if roots & of_config or any("." in flag for flag in flags) else -1

    ranked = [(position, action) for action in actions if (position := rank(action)) is not None]
    return [action for _, action in sorted(ranked, key=lambda pair: pair[0])]


def _fitting(entries: list[list[str]], room: int) -> list[list[str]]:
    taken: list[list[str]] = []
    for entry in entries:
        if len(entry) <= room:
            room -= len(entry)
            taken.append(entry)
    return taken


def _entry(action: argparse.Action, *, brief: bool = False) -> list[str]:
    """Return the lines about a flag: its name, and the first sentence or clause of what it does."""
    name, text = _name(action), " ".join(str(action.help or "").split())
    text, _, default = text.partition(" (default: ")
    text = _SENTENCE_END.split(text.removesuffix(" (repeatable)").removesuffix(" (required)"))[0]
    if brief:
        text = re.sub(r"^Tables?: ", "", text).split("; ")[0]
        text = text[:1].upper() + text[1:]
    text = text if text.endswith("...") else text.removesuffix(".")
    if (default := default.removesuffix(")")) not in _NOTHING:
        text += f" ({default})"
    lines = textwrap.wrap(text, WIDTH - _COLUMN) or [""]
    left = f"  {name}".ljust(_COLUMN)
    if len(left) > _COLUMN or not left.endswith(" "):
        return [f"  {name}", *(" " * _COLUMN + line for line in lines)]
    return [left + lines[0], *(" " * _COLUMN + line for line in lines[1:])]


def _name(action: argparse.Action) -> str:
    """Return a flag with what it takes, e.g. `--label STR`, or the name of an argument."""
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    metavar = re.sub(r"\{None\}\||None,", "", metavar)
    metavar = re.sub(r"^\{([A-Z ]+)\}$", r"\1", metavar)
    if not action.option_strings:
        return re.sub(r"\[\[?(\w+) \[\1 \.\.\.\]\]\]?", r"\1 ...", metavar)
    # An alias is the short name of a nested flag.
    flag = min(action.option_strings, key=len)
    if action.nargs == 0 and action.default is True:
        return f"--no-{flag.removeprefix('--')}"
    words = re.sub(r"^\[(.*) \[.*\]\]$", r"\1 ...", metavar)
    return f"{flag} {words}".rstrip()
