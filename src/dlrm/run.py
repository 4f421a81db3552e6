"""The run directory: everything a training run leaves, and all that later commands read.

RUN/
  config.json              recipe and resolved config: written first, so that a run which is killed
                           while it is made can be made again
  files.json               sizes and hashes of the files that say what the run is: written last, a
                           folder with it is a run
  schema.json              what the model's input means
  environment.json         command, versions, machine
  dataset.json             where the data came from, and its features
  metrics.jsonl            one JSON object a line: train, eval, best, resumed, early_stop events;
                           of an ensemble one member event for each that is trained
  evaluation-SPLIT.json    metrics of the final model, what is drawn of its predictions and what
                           MLPs multiplied by; of more labels than one the metrics of the first, and
                           those of each below `labels`
  importance.json          how much each column matters to the final model, unless left out
  features.json, vocabulary/
                           how raw rows become inputs, so that new data can be scored
  checkpoints/             see dlrm.training.checkpoint; or, of an ensemble,
  members/0, 1, ...        the members, each a run directory
  report.html
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dlrm.errors import RunError
from dlrm.file_records import check_files, file_record
from dlrm.files import TEMPORARY, write_bytes, write_json
from dlrm.json_file import parse_object, read_json, write_sealed
from dlrm.lock import locked
from dlrm.schema import Schema

CONFIG, FILES, IMPORTANCE = "config.json", "files.json", "importance.json"
_MADE = frozenset(
    {CONFIG, "schema.json", "environment.json", "dataset.json", "features.json", "vocabulary"}
)
"""What is written, before `FILES`, when a run is made."""
_ADVICE = "train it again, or take its files from a copy"


class Run:
    """A run directory on disk.

    Args:
        path: Path of the directory.
        silent: Whether `log` and `rewind` do nothing, because another process writes it.

    """

    def __init__(self, path: Path | str, *, silent: bool = False):
        self.path = Path(path)
        self.silent = silent

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        recipe: str,
        config: dict[str, Any],
        schema: Schema,
        environment: dict[str, Any],
        dataset: dict[str, Any],
        contents: Callable[[Path], Mapping[str, Any]] = lambda path: {},
    ) -> "Run":
        """Start a new run directory; what a killed process left of it is removed.

        `contents` puts more into the directory, and returns what is known of these files: by name,
        what `file_record` returns.

        Raises:
            RunError: The folder exists and is not empty.

        """
        cls.check_new(path)
        for left in path.iterdir() if path.is_dir() else ():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != CONFIG:
                left.unlink()
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / CONFIG, {"recipe": recipe, "config": config})
        write_json(path / "schema.json", schema.to_dict())
        write_json(path / "environment.json", environment)
        write_json(path / "dataset.json", dataset)
        known = contents(path)
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        records = {
            name: known.get(name) or file_record(file)
            for name, file in sorted(files.items())
            if file.is_file()
        }
        write_sealed(path / FILES, {"files": records})
        return cls(path)

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Raise a RunError if a new run would overwrite something here.

        A run that was made and has not begun to train is nothing to be kept.
        """
        names = _names(path)
        untrained = FILES in names and not names - _MADE - {FILES}
        if path.exists() and cls.begun(path) is None and not untrained:
            raise RunError(
                f"{path} exists already: give another --run, or --resume to go on with it"
            )

    @classmethod
    def begun(cls, path: Path) -> dict[str, Any] | None:
        """Return what a run is made of that was killed while it was made; None for any other.

        Returns:
            `recipe` and `config`; nothing where it was killed before these were written.

        """
        names = _names(path)
        if names - _MADE or (names and CONFIG not in names):
            return None
        if not names:
            return {} if path.is_dir() else None
        try:
            return read_json(path / CONFIG, RunError, keys=("recipe", "config"))
        except RunError:
            return None

    @staticmethod
    @contextmanager
    def locked(path: Path, *, silent: bool = False) -> Iterator[None]:
        """Keep other processes out of a run directory within the block.

        It is made if need be, and removed in the end where nothing was put into it. `silent` does
        nothing, because another process of the run holds the lock.

        Raises:
            RunError: Another process is at work there.

        """
        if silent or (path.exists() and not path.is_dir()):
            yield
            return
        path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(path, RunError, "training"):
                yield
        finally:
            with suppress(OSError):
                path.rmdir()

    @classmethod
    def open(cls, path: Path | str, *, silent: bool = False, check: bool = True) -> "Run":
        """Open an existing run directory.

        With `check` its files must be those that it was made with, as far as that costs no time.

        Raises:
            RunError: There is none, or a file of it was altered.

        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run directory")
        if not (path / CONFIG).is_file():
            raise RunError(f"{path} is not a run directory: it has no {CONFIG}")
        run = cls(path, silent=silent)
        if check:
            run.check()
        return run

    @staticmethod
    def is_whole(path: Path) -> bool:
        """Return whether a run directory was made to its end, by this dlrm or an older one."""
        return any((path / name).exists() for name in (FILES, "checkpoints", "members"))

    def check(self, *, wholly: bool = False) -> None:
        """Raise a RunError unless the files of this run are those that it was made with.

        `wholly` reads large files too, and not their sizes alone.
        """
        if not self.is_whole(self.path):
            raise RunError(
                f"{self.path}: {FILES} is missing, the run was killed while it was made: give "
                "--resume, or the command that started it"
            )
        if not (self.path / FILES).exists():
            return
        records = read_json(self.path / FILES, RunError, keys=("files",), sealed=True)["files"]
        check_files(self.path, records, RunError, wholly=wholly, advice=_ADVICE)

    @property
    def recipe(self) -> str:
        """Name of the recipe that the run started from."""
        return self._config["recipe"]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, nested dicts."""
        return self._config["config"]

    @property
    def schema(self) -> Schema:
        """The schema of the model's input."""
        try:
            return Schema.from_dict(self._read("schema.json"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{self.path / 'schema.json'}: not a schema ({error}); a run of an older dlrm: "
                "train it again"
            ) from None

    @property
    def environment(self) -> dict[str, Any]:
        """Command, versions and machine."""
        return self._read("environment.json")

    @property
    def dataset(self) -> dict[str, Any]:
        """Facts about the data: their source and their features."""
        return self._read("dataset.json")

    def evaluation(self, split: str) -> dict[str, Any] | None:
        """Return the final evaluation on a split; None if there is none (yet)."""
        return self._read_if_there(f"evaluation-{split}.json")

    @property
    def importance(self) -> dict[str, Any] | None:
        """Importance of each column to the final model; None where nobody measured it."""
        return self._read_if_there(IMPORTANCE)

    def log(self, event: str, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self.silent:
            return
        # The directory may be somebody else's: nothing is written through a link.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.path / "metrics.jsonl", flags, 0o666), "a") as file:
            file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a half-written last one is left out.

        Raises:
            RunError: Another line is not JSON.

        """
        path, rows = self.path / "metrics.jsonl", list[dict[str, Any]]()
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(event := parse_object(line, keys=("event",), nan=True))
                if not isinstance(event["event"], str):
                    raise ValueError("expected a name in event")
            except ValueError as problem:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise RunError(f"{path}, line {number}: {problem}") from None
        return rows

    def rewind(self, step: int) -> None:
        """Forget what metrics.jsonl says of later steps, before a resumed run says it again."""
        if self.silent:
            return
        steps = ((row, row.get("step", 0)) for row in self.metrics())
        rows = [row for row, at in steps if not isinstance(at, int | float) or at <= step]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_bytes(self.path / "metrics.jsonl", lines.encode())

    @property
    def _config(self) -> dict[str, Any]:
        return read_json(self.path / CONFIG, RunError, keys=("recipe", "config"))

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name, RunError, advice=_ADVICE)

    def _read_if_there(self, name: str) -> dict[str, Any] | None:
        return self._read(name) if (self.path / name).is_file() else None


def _names(path: Path) -> set[str]:
    """Return what is in a folder, but for files that a killed process has not finished."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    return {name for name in names if not (name.startswith(".") and name.endswith(TEMPORARY))}
