"""Rows of results by their suite, checked; those that no page can draw, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrm.bench.results import SCHEMA
from dlrm.bench.watch import Seen
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts
from dlrm.reporting.series import LARGEST
from dlrm.reporting.words import measure

NEEDED = {
    "train": ("arch", "batch_size", "step_ms", "verdict", "operators"),
    "infer": ("arch", "batch_size", "step_ms", "verdict", "operators"),
    "ops": ("operator", "ms", "error"),
    "numerics": ("data", "recipe", "variant", "kind", "auc_change", "error"),
    "machine": ("facts", "ceilings"),
    "prediction": (),
}
"""Suite -> keys that a row of it needs to be drawn."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of results, or an object within one: a step, an operator, a variant."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> float:
        """Return a number; NaN where it is none."""
        return measure(self.values.get(name))

    def text(self, name: str) -> str:
        """Return a text; nothing where there is none."""
        value = self.values.get(name)
        return "" if value is None else str(value)

    def each(self, name: str) -> "list[Row]":
        """Return the objects of a list."""
        listed = self.values.get(name)
        listed = listed if isinstance(listed, list) else []
        return [Row(value) for value in listed if isinstance(value, Mapping)]

    @property
    def machine(self) -> str:
        """Fingerprint of the machine."""
        return self.text("machine")

    @property
    def doubts(self) -> str:
        """What else computed while this was measured; nothing where nothing is known of it."""
        if not math.isfinite(self["cores"] + self["load"]):
            return ""
        steal, others = (
            share if math.isfinite(share := self[name]) else None
            for name in ("steal_share", "others_share")
        )
        return Seen(0, int(self["cores"]), self["load"], steal, others).warning or ""


@dataclass(frozen=True, slots=True)
class Step(Row):
    """A row of the suites `train` and `infer`."""

    @property
    def suite(self) -> str:
        """`train` or `infer`."""
        return self.text("suite")

    @property
    def operators(self) -> list[Row]:
        """Operators of the step, each with its time and its work."""
        return self.each("operators")

    @property
    def words(self) -> tuple[str, ...]:
        """What was measured but for the batch size, without what goes without saying."""
        arch, model, storage = (self.text(name) for name in ("arch", "model", "storage"))
        scale, pooling, threads = (
            measure(self.values.get(name), 1.0) for name in ("rows_scale", "pooling", "threads")
        )
        usual = self.suite != "train" or self.text("optim") == "sgd"
        words = (
            self.suite,
            arch if model in ("dlrm", "") else f"{arch} ({model})",
            f"dim {self.text('dim')}" if self.text("dim") else "",
            self.text("precision"),
            f"rows in {storage}" if storage != "fp32" else "",
            "" if usual else self.text("optim"),
            f"{self.text('ids')} ids" if self.text("ids") != "uniform" else "",
            f"{pooling:g} ids a table" if pooling != 1 else "",
            f"{100 * scale:g}% of the rows" if scale != 1 else "",
            f"{threads:g} threads" if threads != self["cores"] else "",
        )
        return tuple(filter(None, words))

    @property
    def setting(self) -> str:
        """What was measured but for the batch size, e.g. `train · criteo-kaggle · fp32`."""
        return " · ".join(self.words)

    @property
    def label(self) -> str:
        """What was measured."""
        batch = self["batch_size"]
        size = "1 sample" if batch == 1 else f"{batch:,.0f} samples"
        return " · ".join((*self.words[:2], size, *self.words[2:]))


@dataclass(frozen=True, slots=True)
class Host:
    """A row of the suite `machine`."""

    machine: str
    """Fingerprint of the machine."""
    facts: Facts
    ceilings: Ceilings

    @property
    def caches(self) -> list[tuple[str, int]]:
        """Names and bytes of the caches, the largest last."""
        named = [(f"L{c.level} {binary(c.size_bytes)}", c.size_bytes) for c in self.facts.caches]
        return sorted(named, key=lambda cache: cache[1])


@dataclass(frozen=True, slots=True)
class Results:
    """Rows by their suite, in their order."""

    rows: Sequence[Mapping[str, Any]]
    hosts: tuple[Host, ...]
    steps: tuple[Step, ...]
    cases: tuple[Row, ...]
    """Operators alone, of the suite `ops`."""
    variants: tuple[Row, ...]
    """Ways to use fewer bits, of the suite `numerics`."""
    predictions: tuple[Row, ...]
    left_out: tuple[str, ...]
    """Which rows cannot be drawn, and why."""

    def host(self, machine: str) -> Host | None:
        """Return the machine of that fingerprint."""
        return next((host for host in self.hosts if host.machine == machine), None)

    @property
    def machines(self) -> tuple[str, ...]:
        """Fingerprints of all rows that are drawn."""
        every = (*self.hosts, *self.steps, *self.cases, *self.variants)
        return tuple(dict.fromkeys(row.machine for row in every))

    @property
    def groups(self) -> list[list[Step]]:
        """Steps that differ in nothing but the batch size, together."""
        groups: dict[tuple[str, str], list[Step]] = {}
        for step in self.steps:
            groups.setdefault((step.machine, step.setting), []).append(step)
        return list(groups.values())

    @property
    def headlines(self) -> list[Step]:
        """The step with the largest batch of each group."""
        return [group[-1] for group in self.groups]


def sort(rows: Sequence[Mapping[str, Any]]) -> Results:
    """Return rows by their suite; of a machine that was measured twice the last row counts."""
    hosts: dict[str, Host] = {}
    suites: dict[str, list[Row]] = {name: [] for name in NEEDED}
    left_out = []
    for number, values in enumerate(rows, start=1):
        suite = str(values.get("suite", ""))
        if why := next(_refusals(suite, values), None):
            left_out.append(f"row {number} ({suite or 'no suite'}): {why}")
        elif suite == "machine":
            host = _host(values)
            hosts[host.machine] = host
        else:
            suites[suite].append(Row(values))
    steps = [Step(row.values) for suite in ("train", "infer") for row in suites[suite]]
    steps.sort(key=lambda step: (step.suite != "train", step.setting, step["batch_size"]))
    cases, variants, predictions = (
        tuple(suites[suite]) for suite in ("ops", "numerics", "prediction")
    )
    return Results(
        rows, tuple(hosts.values()), tuple(steps), cases, variants, predictions, tuple(left_out)
    )


def _host(values: Mapping[str, Any]) -> Host:
    facts, ceilings = Facts.from_dict(values["facts"]), Ceilings.from_dict(values["ceilings"])
    return Host(str(values.get("machine", "")), facts, ceilings)


def _refusals(suite: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a row cannot be drawn."""
    if values.get("schema") != SCHEMA:
        yield f"schema {values.get('schema')}, expected {SCHEMA}"
    if suite not in NEEDED:
        yield "no page draws this suite"
    for name in NEEDED.get(suite, ()):
        if name not in values:
            yield f'lacks "{name}"'
    if suite in ("train", "infer"):
        listed = values["operators"]
        if not (
            isinstance(listed, list) and listed and all(isinstance(o, Mapping) for o in listed)
        ):
            yield 'expected a list of objects in "operators"'
        for name in ("step_ms", "batch_size"):
            if not 0 < measure(values[name]) < math.inf:
                yield f"{name} is {values[name]}, expected a number above 0"
    if suite == "machine":
        yield from _damages(values)


def _damages(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the facts and the ceilings of a machine."""
    try:
        can = _host(values).ceilings
    except KeyError as error:
        yield f'its facts or ceilings lack "{error.args[0]}"'
        return
    except (AttributeError, TypeError, ValueError) as error:
        yield f"its facts or ceilings are damaged ({error})"
        return
    rates = [*can.copy.values(), *can.gather_by_threads.values(), can.call_s]
    rates += [rate for rates_of_sizes in can.flops.values() for rate in rates_of_sizes.values()]
    rates += [v for p in can.gather for v in (p.row_bytes, p.table_bytes, p.row_s)]
    if not all(0 < rate < LARGEST for rate in rates):
        yield f"a ceiling is not above 0 and below {LARGEST:g}"


def binary(size: float) -> str:
    """Return the size of a cache in powers of 1024, as data sheets have it, e.g. `48 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def best(rates: Mapping[int, float]) -> float:
    """Return the rate with most threads."""
    return rates[max(rates)]
