"""Rows of results as a page of benchmarks draws them: checked, typed, and those it cannot draw."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from dlrm.bench.machine.ceilings import Ceilings
from dlrm.bench.machine.facts import Facts
from dlrm.bench.results import SCHEMA
from dlrm.reporting.record import measure
from dlrm.reporting.series import LARGEST

Row = Mapping[str, Any]
T = TypeVar("T")

TERMS = ("calls_ms", "compute_ms", "stream_ms", "latency_ms", "transfer_ms")
"""What the time of an operator is made of."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A part of a step; figures that are not known are not a number."""

    name: str
    forward_ms: float
    backward_ms: float
    ms: float
    share: float
    flops: float
    bytes: float
    lines: float
    gflops_per_s: float
    gb_per_s: float
    intensity: float
    roofline_share: float
    bound: str
    predicted_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the suites `train` and `infer`."""

    suite: str
    arch: str
    model: str
    batch_size: float
    precision: str
    storage: str
    optim: str
    ids: str
    step_ms: float
    step_low: float
    step_high: float
    samples_per_s: float
    roofline_share: float
    predicted_ms: float
    model_error: float
    verdict: str
    machine: str
    row: Row
    operators: tuple[Operator, ...]

    @property
    def setting(self) -> str:
        """What was measured but for the batch size, e.g. `train · criteo-kaggle · fp32`."""
        return " · ".join(self.words)

    @property
    def label(self) -> str:
        """What was measured."""
        return " · ".join((*self.words[:2], f"{self.batch_size:,.0f} samples", *self.words[2:]))

    @property
    def words(self) -> tuple[str, ...]:
        """What was measured, without what goes without saying."""
        scale = measure(self.row.get("rows_scale"), 1.0)
        pooling = measure(self.row.get("pooling"), 1.0)
        threads = measure(self.row.get("threads"), 1.0)
        return (
            self.suite,
            self.arch if self.model in ("dlrm", "") else f"{self.arch} ({self.model})",
            *((f"dim {self.row['dim']}",) if self.row.get("dim") is not None else ()),
            self.precision,
            *((f"rows in {self.storage}",) if self.storage != "fp32" else ()),
            *((self.optim,) if self.suite == "train" and self.optim != "sgd" else ()),
            *((f"{self.ids} ids",) if self.ids != "uniform" else ()),
            *((f"{pooling:g} ids a table",) if pooling != 1 else ()),
            *((f"{100 * scale:g}% of the rows",) if scale != 1 else ()),
            *((f"{threads:g} threads",) if threads != measure(self.row.get("cores")) else ()),
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the suite `ops`: an operator alone."""

    operator: str
    ms: float
    ms_low: float
    ms_high: float
    p95_ms: float
    warm_ms: float
    flops: float
    bytes: float
    gflops_per_s: float
    gb_per_s: float
    roofline_share: float
    bound: str
    error: str
    """Why it failed; nothing where it did not."""
    machine: str
    row: Row


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of the suite `numerics`: a way to use fewer bits."""

    data: str
    recipe: str
    variant: str
    kind: str
    auc_mean: float
    auc_change: float
    auc_change_low: float
    auc_change_high: float
    normalized_entropy_change: float
    log_loss_change: float
    calibration_change: float
    noise_auc: float
    verdict: str
    bytes_per_sample: float
    tables_bytes: float
    samples_per_s: float
    speedup: float
    error: str
    machine: str
    row: Row


@dataclass(frozen=True, slots=True)
class Host:
    """A row of the suite `machine`."""

    machine: str
    facts: Facts
    ceilings: Ceilings


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
