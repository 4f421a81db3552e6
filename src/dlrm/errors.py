"""The errors that this project raises on purpose, as a tree.

    DlrmError                 everything this project raises on purpose
    ├── InputError            a raw file says something it must not (file, line, column, expected)
    ├── DatasetError          a prepared dataset is incomplete, altered or does not fit
    ├── RunError              a run directory is missing, damaged or of another schema
    │   └── CheckpointError   a checkpoint is damaged or belongs to another model
    ├── IdError               a table id is out of range (names the feature)
    ├── ConfigError           a setting has no meaning (quotes it and lists the choices)
    │   ├── PlanError         tables do not fit the devices (names both sums)
    │   └── UsageError        a command lacks something that it needs
    ├── EstimatorError        a Classifier got data or parameters it cannot take (a ValueError too)
    ├── MissingExtraError     an optional package is not installed (prints the pip line)
    ├── DivergedError         the loss is no longer a number
    ├── ForkError             a forked process needs threads that only its parent has
    ├── WorldError            another process of the run is gone, or cannot be reached
    └── Interrupted           the user stopped a run; it is saved and can be resumed

The command line prints a DlrmError as one message and exits with 1, with 2 after a UsageError;
`--debug` shows the traceback.
"""

from collections.abc import Iterable
from pathlib import Path


class DlrmError(Exception):
    """Base of every error that this project raises on purpose."""


class InputError(DlrmError):
    """A raw file says something it must not.

    Args:
        problem: What is wrong and what was expected, e.g. `label is "2", expected 0 or 1`.
        file: The file it stands in.
        line: Line number, counted from 1.
        row: Row number, counted from 1, where there are no lines.
        column: Name of the column, e.g. `I3`.

    """

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
    ):
        self.problem, self.file, self.line, self.column = problem, str(file), line, column
        place = self.file
        if line is not None:
            place += f", line {line}"
        if row is not None:
            place += f", row {row}"
        if column is not None:
            place += f", column {column}"
        super().__init__(f"{place}: {problem}")


class DatasetError(DlrmError):
    """A prepared dataset is incomplete, altered or does not fit what is asked of it."""


class RunError(DlrmError):
    """A run directory is missing, damaged or of another schema."""


class CheckpointError(RunError):
    """A checkpoint is damaged or belongs to another model."""


class IdError(DlrmError):
    """A table id is out of range."""


class ConfigError(DlrmError):
    """A setting has no meaning."""


class PlanError(ConfigError):
    """Tables do not fit the devices they were to be spread over."""


class UsageError(ConfigError):
    """A command lacks something that it needs."""


class EstimatorError(DlrmError, ValueError):
    """A `Classifier` got data or parameters it cannot take; scikit-learn expects a ValueError."""


class MissingExtraError(DlrmError):
    """An optional package is not installed."""

    def __init__(self, what: str, extra: str, then: str | None = None):
        line = f"pip install 'opendlrm[{extra}]'" + (f" && {then}" if then else "")
        super().__init__(f"{what} needs an extra package: {line}")


class DivergedError(DlrmError):
    """The loss is no longer a number."""


class ForkError(DlrmError):
    """A forked process needs threads that only its parent has."""


class WorldError(DlrmError):
    """Another process of the run is gone, or cannot be reached."""


class Interrupted(DlrmError):  # noqa: N818 - it is no error of anybody's
    """The user stopped a run; it is saved and can be resumed."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in a catalogue, with the choices."""
    return ConfigError(f'unknown {kind} "{name}"; choose one of: {", ".join(choices)}')
