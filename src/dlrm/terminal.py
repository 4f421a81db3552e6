"""The terminal: progress goes to standard error, results to standard output."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Names of the user's may hold what would be markup or the name of an emoji: "[red]", ":x:".
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)
LINE_EVERY_S = 10.0
"""Between lines about progress where there is no terminal."""
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def silence() -> None:
    """Show no progress from now on, and print nothing: another process speaks for this one."""
    out.quiet = err.quiet = True
    _quiet.set(True)


def say(lines: Iterable[str]) -> None:
    """Print lines to standard error as they are, however wide."""
    for line in lines:
        err.print(line, soft_wrap=True, highlight=False)


@contextmanager
def muted(asked: bool = True) -> Iterator[None]:
    """Print nothing to standard error within: it has been said; `asked` False changes nothing."""
    before = err.quiet
    err.quiet = asked or before
    try:
        yield
    finally:
        err.quiet = before


@contextmanager
def quiet(asked: bool = True) -> Iterator[None]:
    """Show no progress within, in this thread; `asked` False changes nothing."""
    before = _quiet.set(asked or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(before)


def progress(*details: str) -> Progress:
    """Return a progress bar on standard error, or what prints lines where that is no terminal.

    Args:
        details: Names of task fields to show behind the bar, e.g. `loss`.

    """
    if not err.is_terminal:
        return _Lines(details)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(f"{{task.fields[{detail}]}}", markup=False) for detail in details),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=_quiet.get(),
    )


class _Lines(Progress):
    """A plain line about a task now and then, for a file or a pipe: no bar, no control characters.

    Args:
        details: Names of task fields that the line ends with.

    """

    def __init__(self, details: tuple[str, ...]):
        super().__init__(disable=True)
        self._details, self._silent = details, _quiet.get()
        self._due = monotonic() + LINE_EVERY_S

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count what has been done; print a line where one is due."""
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task; print a line where one is due."""
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if monotonic() < self._due or self._silent:
            return
        self._due = monotonic() + LINE_EVERY_S
        task = next(task for task in self.tasks if task.id == task_id)
        total = "" if task.total is None else f" of {task.total:,.0f}"
        details = (task.fields.get(detail) for detail in self._details)
        text = ", ".join(
            [f"{task.description}: {task.completed:,.0f}{total}", *filter(None, details)]
        )
        err.print(text, soft_wrap=True, highlight=False)


def table(title: str | None, *columns: str) -> Table:
    """Return an empty table: the first column is text, the others are numbers.

    On a narrow screen cells go on in another line, and lose nothing.
    """
    grid = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        first = position == 0
        grid.add_column(column, justify="left" if first else "right", overflow="fold")
    return grid


def human_bytes(size: float) -> str:
    """Return a size as people read it, e.g. `1.4 GB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
