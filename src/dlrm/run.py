"""The run directory: everything a training run leaves, and all that later commands read.

RUN/
  config.json              recipe and resolved config
  schema.json              what the model's input means
  environment.json         command, versions, machine
  dataset.json             where the data came from, and its features
  metrics.jsonl            one JSON object a line: train, eval, best, resumed, early_stop events;
                           of an ensemble one member event for each that is trained
  evaluation-SPLIT.json    metrics of the final model and what is drawn of its predictions; of more
                           labels than one those of the first, and of each below `labels`
  features.json, vocabulary/
                           how raw rows become inputs, so that new data can be scored
  checkpoints/             see dlrm.training.checkpoint; or, of an ensemble,
  members/0, 1, ...        the members, each a run directory
  report.html
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlrm.errors import RunError
from dlrm.files import write_bytes, write_json
from dlrm.schema import Schema


class Run:
    """A run directory on disk.

    Args:
        path: Of the directory.
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
    ) -> "Run":
        """Start a new run directory.

        Raises:
            RunError: The folder exists and is not empty.

        """
        cls.check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "schema.json", schema.to_dict())
        write_json(path / "environment.json", environment)
        write_json(path / "dataset.json", dataset)
        # Last, because a folder with a config is a run.
        write_json(path / "config.json", {"recipe": recipe, "config": config})
        return cls(path)

    @staticmethod
    def check_new(path: Path) -> None:
        """Raise a RunError if a new run would overwrite something here."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} exists already: give another --run, or --resume to go on with it"
            )

    @classmethod
    def open(cls, path: Path | str, *, silent: bool = False) -> "Run":
        """Open an existing run directory; arguments as for the class.

        Raises:
            RunError: There is none.

        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run directory")
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is not a run directory: it has no config.json")
        return cls(path, silent=silent)

    @property
    def recipe(self) -> str:
        """Name of the recipe that the run started from."""
        return self._field("recipe")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, nested dicts."""
        return self._field("config")

    @property
    def schema(self) -> Schema:
        """What the model's input means."""
        try:
            return Schema.from_dict(self._read("schema.json"))
        except (KeyError, TypeError) as error:
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
        """Where the data came from, and its features."""
        return self._read("dataset.json")

    def evaluation(self, split: str) -> dict[str, Any] | None:
        """Return the final evaluation on a split; None if there is none (yet)."""
        name = f"evaluation-{split}.json"
        return self._read(name) if (self.path / name).is_file() else None

    def log(self, event: str, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self.silent:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a half-written last one is left out.

        Raises:
            RunError: Another line is not JSON.

        """
        return list(self._metrics())

    def rewind(self, step: int) -> None:
        """Forget what metrics.jsonl says of later steps, before a resumed run says it again."""
        if self.silent:
            return
        kept = [row for row in self._metrics() if row.get("step", 0) <= step]
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        write_bytes(self.path / "metrics.jsonl", lines.encode())

    def _metrics(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        try:
            lines = path.read_text().splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise RunError(f"{path}: not text ({error})") from None
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                if number == len(lines) and not line.endswith("\n"):
                    return
                raise RunError(f"{path}, line {number}: not JSON") from None

    def _field(self, name: str) -> Any:
        values = self._read("config.json")
        if not isinstance(values, dict) or name not in values:
            raise RunError(f"{self.path / 'config.json'}: it has no {name}")
        return values[name]

    def _read(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path}: {name} is missing") from None
        except ValueError as error:
            raise RunError(f"{path}: not JSON ({error})") from None
