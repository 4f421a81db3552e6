"""The models of a server: which there are, their versions, and what is loaded of them.

Names and run directories come from the command line alone. A request may load a model anew, which
takes the newest checkpoint of its run, and unload it; it names no file.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any

from dlrm.errors import ConfigError, DlrmError
from dlrm.run import Run
from dlrm.serving.limits import RefusalError
from dlrm.serving.model import BackEnd, Model
from dlrm.training import ensemble
from dlrm.training.checkpoint import best_step, folder
from dlrm.training.config import from_dict

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(slots=True)
class _Slot:
    """A run directory that is served under a name."""

    path: Path
    model: Model | None = None
    fingerprint: str = ""
    """Of the checkpoint that the model has."""
    problem: str = "unloaded"
    """Why there is no model."""


@dataclass(slots=True)
class _Entry:
    """All that goes by one name."""

    slots: list[_Slot] = field(default_factory=list)
    opened: int = 0
    """Versions so far."""


class Repository:
    """Models by name and version.

    A version is a number, counted from 1 as runs are opened: of a name that stands for several
    runs each is one. A request without a version goes to the largest.

    Args:
        runs: Words `RUN` or `NAME=RUN`; the name of a run is that of its directory.
        back_end: What runs them.

    Raises:
        ConfigError: A name cannot be one.
        DlrmError: A run cannot be opened.

    """

    def __init__(self, runs: Sequence[str], back_end: BackEnd):
        self._back_end = back_end
        self._entries: dict[str, _Entry] = {}
        self._loading = Lock()
        for word in runs:
            name, path = _named(word)
            self._entries.setdefault(name, _Entry()).slots.append(_Slot(path))
        for name in self._entries:
            self.load(name)

    @property
    def names(self) -> list[str]:
        """The names, in the order of the command line."""
        return list(self._entries)

    @property
    def ready(self) -> bool:
        """Whether each name has a model."""
        return all(map(self._loaded, self._entries))

    def models(self) -> list[Model]:
        """Return all versions of all models that are loaded."""
        return [model for name in self._entries for model in self._loaded(name)]

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that are loaded, ascending."""
        return sorted((model.version for model in self._loaded(name)), key=int)

    def find(self, name: str, version: str | None = None) -> Model:
        """Return a model, of its largest version where none is given.

        Raises:
            RefusalError: There is none of that name or version, or it is not loaded.

        """
        self._entry(name)
        loaded = self._loaded(name)
        if not loaded:
            problem = f'the model "{name}" is not loaded'
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, problem)
        if version is None:
            return max(loaded, key=lambda model: int(model.version))
        for model in loaded:
            if model.version == version:
                return model
        there = ", ".join(self.versions(name))
        problem = f'the model "{name}" has no such version; it has {there}'
        raise RefusalError(HTTPStatus.NOT_FOUND, problem)

    def load(self, name: str) -> bool:
        """Open what is newer than what is loaded; requests that wait are answered by what was.

        Returns:
            Whether there is a new version.

        Raises:
            RefusalError: There is no such model.
            DlrmError: A run cannot be opened, or changes meanwhile; what was loaded stays so.

        """
        entry, changed = self._entry(name), False
        with self._loading:
            for slot in entry.slots:
                fingerprint, step = _checkpoint(slot.path)
                if slot.model is not None and fingerprint == slot.fingerprint:
                    continue
                problem = f"{slot.path}: was changed while it was opened; load it again"
                try:
                    predictor = self._back_end.open(slot.path)
                except Exception as error:
                    # Files of two runs fail in whatever way.
                    if _checkpoint(slot.path)[0] != fingerprint:
                        raise DlrmError(problem) from error
                    raise
                # What was opened may be another, where the run was exchanged meanwhile.
                if _checkpoint(slot.path)[0] != fingerprint:
                    raise DlrmError(problem)
                entry.opened += 1
                version = str(entry.opened)
                model = Model(name, version, predictor, self._back_end, step)
                model.warm_up()
                slot.model, slot.fingerprint, changed = model, fingerprint, True
        return changed

    def unload(self, name: str) -> None:
        """Take all versions of a model away; requests that wait are answered.

        Raises:
            RefusalError: There is no such model.

        """
        entry = self._entry(name)
        with self._loading:
            for slot in entry.slots:
                slot.model = None

    def index(self) -> list[dict[str, Any]]:
        """Return what there is, as the protocol's repository extension has it."""
        rows: list[dict[str, Any]] = []
        for name, entry in self._entries.items():
            for slot in entry.slots:
                if slot.model is None:
                    rows.append({"name": name, "state": "UNAVAILABLE", "reason": slot.problem})
                else:
                    version = slot.model.version
                    rows.append({"name": name, "version": version, "state": "READY", "reason": ""})
        return rows

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            problem = f"there is no such model; there are {', '.join(self._entries)}"
            raise RefusalError(HTTPStatus.NOT_FOUND, problem)
        return self._entries[name]

    def _loaded(self, name: str) -> list[Model]:
        slots = self._entries[name].slots
        # Another thread may unload one meanwhile.
        return [model for slot in slots if (model := slot.model) is not None]


def _named(word: str) -> tuple[str, Path]:
    name, equals, rest = word.partition("=")
    if not equals or Path(word).is_dir():
        name, rest = Path(word).resolve().name, word
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" cannot be the name of a model: give one of letters, digits, ".", "_" and '
            f'"-", as in NAME={rest}'
        )
    return name, Path(rest)


def _checkpoint(path: Path) -> tuple[str, int | None]:
    """Return what tells the best checkpoint of a run from others, and its step if it is one."""
    run = Run.open(path)
    count = from_dict(run.config).ensemble
    members = [Run.open(ensemble.folder(run, k)) for k in range(count)] if count > 1 else [run]
    steps = [best_step(member) for member in members]
    digest = sha256(json.dumps(run.config, sort_keys=True).encode())
    for member, step in zip(members, steps, strict=True):
        written = folder(member) / f"step-{step:09d}" / "progress.json"
        try:
            # It has the checksums of all files beside it.
            digest.update(written.read_bytes())
        except OSError:
            raise DlrmError(f"{run.path}: its checkpoint went while it was opened") from None
    return digest.hexdigest(), steps[0] if count == 1 else None
