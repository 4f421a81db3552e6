"""The command line.

Each command is a plain Python function; its signature gives the flags, and what it returns is
printed: as a table, or with `--json` as one JSON object on the last line of standard output.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from dlrm.errors import DlrmError, Interrupted, UsageError, WorldError

COMMANDS = {
    "train": ("train:main", "Train a model, up to its scores and its report."),
    "eval": ("evaluate:evaluate", "Measure a trained model on a split of the data."),
    "plan": ("plan:main", "Say what a run would take, and where tables would lie."),
    "parity": ("parity:main", "Show that several processes learn what one learns."),
    "compare": ("compare:main", "Train several models on the same rows."),
    "compress": ("compress:compress", "Make the tables of a run smaller."),
    "experiment": ("experiment:main", "Repeat an experiment of the paper."),
    "explain": ("explain:explain", "Say which columns matter to a trained model."),
    "embeddings": (
        "embeddings:embeddings",
        "Write the vectors that a trained model has of the values of a column.",
    ),
    "predict": ("predict:predict", "Score raw data with a trained model."),
    "export": ("export:export", "Write a trained model as a file that another runtime runs."),
    "runtimes": ("runtimes:compare_runtimes", "Compare the runtimes that can run a trained model."),
    "serve": ("serve:serve", "Serve trained models over HTTP."),
    "report": ("report:report", "Draw the report of a run again."),
    "data fit": ("fit_log:fit_log", "Fit a model of a whole log, which can be shared."),
    "data generate": ("generate:generate", "Write a generated click log."),
    "data infer": ("infer:infer", "Write what a table's columns are, to be edited."),
    "data prepare": ("prepare:prepare", "Turn raw data into a prepared dataset."),
    "data describe": ("describe:describe", "Show what is in a prepared dataset."),
    "trace profile": (
        "trace.profile:trace_profile",
        "Measure how the rows of tables are accessed.",
    ),
    "trace fit": ("trace.fit:trace_fit", "Fit a model of the traffic, which can be shared."),
    "trace generate": ("trace.generate:trace_generate", "Generate traces from such a model."),
    "trace compare": (
        "trace.compare:trace_compare",
        "Say how faithful a trace is to its source.",
    ),
    "bench machine": (
        "bench.machine:bench_machine",
        "Measure what this machine can do, and keep it.",
    ),
    "bench train": ("bench.step:train", "Show where the time of a training step goes."),
    "bench infer": ("bench.step:infer", "Show where the time of scoring goes."),
    "bench ops": ("bench.ops:bench_ops", "Time single operators over sweeps of settings."),
    "bench original": (
        "bench.peers:bench_original",
        "Time the training step beside the original's.",
    ),
    "bench embedding": (
        "bench.peers:bench_embedding",
        "Time the embedding tables beside those of torch and FBGEMM.",
    ),
    "bench numerics": (
        "bench.numerics:main",
        "Show what fewer bits cost in accuracy, and what they bring.",
    ),
    "bench serve": ("bench.serve:bench_serve", "Measure a server under load."),
    "bench diff": ("bench.diff:bench_diff", "Say what got slower between two files of results."),
    "bench report": ("bench.report:bench_report", "Draw files of results as one page."),
}
"""Name of a command -> the function behind it in `dlrm.commands`, imported when called, and what it
does."""

OPTIONS = """Options of every command:
  --json     the last line on standard output is one JSON object with the results
  --debug    show the traceback of an error
  --help     what people use, on two screens; --help-all has every flag"""


EXPLAINED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
"""System errors that a message explains as well as a traceback."""


def main(
    arguments: list[str] | None = None, *, started: Callable[[], object] = lambda: None
) -> int:
    """Run a command line.

    Args:
        arguments: Words after `dlrm`; None takes them from the process.
        started: Called when everything is imported and the command begins.

    Returns:
        The exit status: 0, 1 after an error or where a comparison failed, 2 for a wrong command
        line, 3 where another process of the run was lost, 130 after Ctrl-C.

    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "--version":
        from dlrm import __version__

        print(f"dlrm {__version__}")
        return 0
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
    if name is None:
        try:
            status = _usage(words)
            sys.stdout.flush()
        except BrokenPipeError as error:
            return _explain(error) or 1
        return status
    words = words[len(name.split()) :]
    as_json = _take(words, "--json")
    debug = _take(words, "--debug")
    module, _, function = COMMANDS[name][0].partition(":")
    try:
        command = getattr(import_module(f"dlrm.commands.{module}"), function)
        started()
        result = _call(command, words, f"dlrm {name}")
        _show(result, as_json)
    except (DlrmError, KeyboardInterrupt, OSError) as error:
        status = None if debug and not isinstance(error, Interrupted) else _explain(error)
        if status is None:
            raise
        return status
    # What was found may be what was not hoped for.
    return getattr(result, "status", 0)


def _explain(error: BaseException) -> int | None:
    """Say what happened and return the exit status; None for what only a traceback explains."""
    match error:
        case Interrupted():
            _complain(str(error))
            return 130
        case KeyboardInterrupt():
            _complain("stopped")
            return 130
        case DlrmError():
            _complain(f"error: {error}")
            return 3 if isinstance(error, WorldError) else 2 if isinstance(error, UsageError) else 1
        case BrokenPipeError():
            # Whoever read our output has seen enough; Python must not complain about it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case OSError() if error.errno in EXPLAINED:
            _complain(f"error: {error.filename or 'output'}: {error.strerror}")
            return 1
    return None


def _call(function: Callable[..., Any], words: list[str], prog: str) -> Any:
    if function.__code__.co_varnames[:2] == ("words", "prog"):
        # A command whose flags depend on its first word parses them itself.
        return function(words, prog)
    from dlrm.commands.flags import parse

    return parse(function, words, prog)


def _show(result: Any, as_json: bool) -> None:
    if result is None:
        # Another process speaks.
        return
    # Standard output may have had what the command makes.
    beside = getattr(result, "beside", False)
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False), file=sys.stderr if beside else None)
        return
    if (text := getattr(result, "text", None)) is not None:
        # Meant for a file: no colours, no line breaks of ours.
        print(text, end="")
        return
    from dlrm import terminal

    console = terminal.err if beside else terminal.out
    console.print(result)
    if (command := getattr(result, "next_command", None)) is not None:
        # One line however long, to be copied.
        console.print(f"Next: {command}", soft_wrap=True, highlight=False)


def _take(words: list[str], flag: str) -> bool:
    present = flag in words
    while flag in words:
        words.remove(flag)
    return present


def _complain(message: str) -> None:
    if message:
        print(f"dlrm: {message}", file=sys.stderr)


def _usage(words: list[str]) -> int:
    # The commands of a group, such as `dlrm bench`, or all.
    group = f"{words[0]} " if words else ""
    shown = {name: about for name, (_, about) in COMMANDS.items() if name.startswith(group)}
    if not shown:
        group, shown = "", {name: about for name, (_, about) in COMMANDS.items()}
    rest = words[1:] if group else words
    is_help = not rest or rest[0] in ("-h", "--help", "--help-all", "help")
    lines = [f"usage: dlrm {group}COMMAND ...", ""]
    if not is_help:
        lines = [f'dlrm: unknown command "{" ".join(words[:2])}"; choose one of:', ""]
    width = max(map(len, shown)) + 2
    lines += [f"  {name:{width}}{about}" for name, about in shown.items()]
    lines += ["", OPTIONS, "", f"dlrm {group}COMMAND --help says more."]
    print("\n".join(lines), file=sys.stdout if is_help else sys.stderr)
    return 0 if is_help else 2
