"""Rows of results by their suite, checked; those that no page can draw, and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from dlrm.bench.results import SCHEMA
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts
from dlrm.reporting.bench_rows import Case, Host, Operator, Row, Step, Variant
from dlrm.reporting.record import measure
from dlrm.reporting.series import LARGEST

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """Rows by their suite, in their order."""

    hosts: tuple[Host, ...]
    steps: tuple[Step, ...]
    cases: tuple[Case, ...]
    variants: tuple[Variant, ...]
    predictions: tuple[Row, ...]
    """Rows of the suite `prediction`."""
    left_out: tuple[str, ...]
    """Which rows cannot be drawn, and why."""

    def host(self, machine: str) -> Host | None:
        """Return the machine of that fingerprint."""
        return next((host for host in self.hosts if host.machine == machine), None)

    @property
    def machines(self) -> tuple[str, ...]:
        """Fingerprints of all rows that are drawn."""
        every = (*self.hosts, *self.steps, *self.cases, *self.variants)
        return tuple(dict.fromkeys(each.machine for each in every))


def sort(rows: Sequence[Row]) -> Found:
    """Return rows by their suite; of a machine that was measured twice the last row counts."""
    hosts: dict[str, Host] = {}
    steps: list[Step] = []
    cases: list[Case] = []
    variants: list[Variant] = []
    predictions: list[Row] = []
    left_out: list[str] = []
    for number, row in enumerate(rows, start=1):
        suite = str(row.get("suite", ""))
        try:
            if row.get("schema") != SCHEMA:
                raise _UndrawableError(f"schema {row.get('schema')}, expected {SCHEMA}")
            match suite:
                case "machine":
                    host = _host(row)
                    hosts[host.machine] = host
                case "train" | "infer":
                    steps.append(_step(row))
                case "ops":
                    cases.append(_made(Case, row))
                case "prediction":
                    predictions.append(row)
                case "numerics":
                    variants.append(_made(Variant, row))
                case _:
                    raise _UndrawableError("no page draws this suite")
        except _UndrawableError as why:
            left_out.append(f"row {number} ({suite or 'no suite'}): {why}")
    steps.sort(key=lambda step: (step.suite != "train", step.setting, step.batch_size))
    return Found(
        tuple(hosts.values()),
        tuple(steps),
        tuple(cases),
        tuple(variants),
        tuple(predictions),
        tuple(left_out),
    )


class _UndrawableError(Exception):
    """A row says too little."""


def _host(row: Row) -> Host:
    try:
        facts, ceilings = Facts.from_dict(row["facts"]), Ceilings.from_dict(row["ceilings"])
    except KeyError as error:
        raise _UndrawableError(f'its facts or ceilings lack "{error.args[0]}"') from None
    except (AttributeError, TypeError, ValueError) as error:
        raise _UndrawableError(f"its facts or ceilings are damaged ({error})") from None
    rates = [*ceilings.copy.values(), *ceilings.gather_by_threads.values(), ceilings.call_s]
    rates += [rate for each in ceilings.flops.values() for rate in each.values()]
    rates += [value for p in ceilings.gather for value in (p.row_bytes, p.table_bytes, p.row_s)]
    if not all(0 < rate < LARGEST for rate in rates):
        raise _UndrawableError(f"a ceiling is not above 0 and below {LARGEST:g}")
    return _made(Host, row, facts=facts, ceilings=ceilings)


def _step(row: Row) -> Step:
    parts = row.get("operators")
    if not isinstance(parts, list) or not parts or not all(isinstance(p, Mapping) for p in parts):
        raise _UndrawableError('expected a list of objects in "operators"')
    step = _made(Step, row, operators=tuple(_made(Operator, part) for part in parts))
    for name in ("step_ms", "batch_size"):
        if not 0 < getattr(step, name) < math.inf:
            raise _UndrawableError(f"{name} is {row[name]}, expected a number above 0")
    return step


def _made(kind: type[T], row: Row, **given: Any) -> T:
    """Return a row as an object; figures that are no numbers are not a number."""
    named = fields(kind)  # pyright: ignore[reportArgumentType]
    values = {"row": row, **given} if "row" in {field.name for field in named} else given
    for field in named:
        if field.name in values:
            continue
        if field.name not in row:
            raise _UndrawableError(f'lacks "{field.name}"')
        found = row[field.name]
        text = field.type is str
        values[field.name] = ("" if found is None else str(found)) if text else measure(found)
    return kind(**values)
