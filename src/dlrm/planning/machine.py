"""A machine with its measured ceilings, kept on disk for whatever refers to it.

~/.cache/dlrm/machines/<fingerprint>-<threads>.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrm import compiler
from dlrm.files import write_json
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts, facts

SCHEMA = 1
"""Of the file."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is and what it can do."""

    facts: Facts
    ceilings: Ceilings
    versions: dict[str, str]
    """Of what measured it: dlrm, python, torch, system."""
    taken: str
    """When, UTC, as ISO 8601."""
    costs: dict[str, Any] | None
    """The fitted cost model, JSON-ready; None where there is none."""

    @property
    def fingerprint(self) -> str:
        """Of the hardware."""
        return self.facts.fingerprint

    def to_dict(self) -> dict[str, Any]:
        """Return the machine JSON-ready."""
        return {
            "facts": self.facts.to_dict(),
            "ceilings": self.ceilings.to_dict(),
            "versions": dict(self.versions),
            "taken": self.taken,
            "costs": self.costs,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Machine":
        """Return what `to_dict` was made of.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.

        """
        costs = values["costs"]
        return cls(
            facts=Facts.from_dict(values["facts"]),
            ceilings=Ceilings.from_dict(values["ceilings"]),
            versions={name: str(version) for name, version in values["versions"].items()},
            taken=str(values["taken"]),
            costs=None if costs is None else dict(costs),
        )


def kept(threads: int | None = None) -> Machine | None:
    """Return what was kept of this hardware; None if nothing was, or it cannot be read.

    Args:
        threads: That it was measured with; None for as many as torch uses now.

    """
    source = _path(facts().fingerprint, threads or torch.get_num_threads())
    try:
        values = json.loads(source.read_text())
        found = Machine.from_dict(values) if values["schema"] == SCHEMA else None
    # Whatever stands there instead: it is measured anew.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if found and found.fingerprint == facts().fingerprint else None


def keep(machine: Machine) -> Path:
    """Write a machine where `kept` finds it, and return that file.

    Raises:
        OSError: The folder cannot be written.

    """
    target = path(machine)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, {"schema": SCHEMA, **machine.to_dict()})
    return target


def path(machine: Machine) -> Path:
    """Return the file that a machine is kept in."""
    return _path(machine.fingerprint, machine.ceilings.threads)


def folder() -> Path:
    """Return where machines are kept."""
    return compiler.cache() / "machines"


def _path(fingerprint: str, threads: int) -> Path:
    return folder() / f"{fingerprint}-{threads}.json"
