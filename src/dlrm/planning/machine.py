"""A machine with its measured ceilings and fitted costs, kept on disk for whatever refers to it.

~/.cache/dlrm/machines/<fingerprint>-<threads>.json
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrm import compiler
from dlrm.files import write_json
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import Costs, Device
from dlrm.planning.facts import Facts, facts
from dlrm.planning.record import Record

SCHEMA = 2
"""Version of the file."""


@dataclass(frozen=True, slots=True)
class Machine(Record):
    """What a machine is and what it can do."""

    facts: Facts
    ceilings: Ceilings
    versions: dict[str, str]
    """Versions of what measured it: dlrm, python, torch, system."""
    taken: str
    """When, UTC, as ISO 8601."""
    costs: Costs | None
    """The fitted cost model; None where there is none."""

    @property
    def fingerprint(self) -> str:
        """Name of the hardware."""
        return self.facts.fingerprint

    @property
    def device(self) -> Device:
        """The machine, as what predicts a step."""
        return Device(self.ceilings, self.costs or Costs({}))

    def measured(self) -> dict[str, Any]:
        """Return what belongs in a row of results, JSON-ready."""
        values = self.to_dict()
        return {name: values[name] for name in ("facts", "ceilings", "costs")}

    def to_dict(self) -> dict[str, Any]:
        """Return the machine JSON-ready."""
        return {**Record.to_dict(self), "facts": self.facts.to_dict()}


def load(threads: int | None = None) -> Machine | None:
    """Return what was saved of this hardware with so many threads, or as many as torch uses now.

    None if nothing was, or it cannot be read.
    """
    source = _path(facts().fingerprint, threads or torch.get_num_threads())
    try:
        values = json.loads(source.read_text())
        machine = Machine.from_dict(values) if values["schema"] == SCHEMA else None
    # Whatever stands there instead: it is measured anew.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return machine if machine and machine.fingerprint == facts().fingerprint else None


def save(machine: Machine) -> Path:
    """Write a machine where `load` finds it, and return that file.

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


def _path(fingerprint: str, threads: int) -> Path:
    return compiler.cache() / "machines" / f"{fingerprint}-{threads}.json"
