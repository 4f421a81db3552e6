"""Rows of results by their suite, checked; those that no page can draw, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrm.bench.results import SCHEMA
from dlrm.bench.watch import Seen
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts
from dlrm.planning.what_if import NAMED
from dlrm.reporting.charts.curves import LARGEST
from dlrm.reporting.words import UNKNOWN, measure, number

OF_STEPS = ("arch", "batch_size", "step_ms", "verdict", "operators")
NEEDED = {
    "train": OF_STEPS,
    "infer": OF_STEPS,
    "ops": ("operator", "ms", "error"),
    "numerics": ("data", "recipe", "variant", "kind", "auc_change", "error"),
    "machine": ("facts", "ceilings"),
    "serve": ("what",),
    "prediction": (),
}
"""Suite -> keys that a row of it needs to be drawn."""
CHANGES = 5
"""Changes of a step that its verdict and its card name."""


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

    def objects(self, name: str) -> "list[Row]":
        """Return the objects of the list of that name; none where it is no list."""
        listed = self.values.get(name)
        listed = listed if isinstance(listed, list) else []
        return [Row(value) for value in listed if isinstance(value, Mapping)]

    def numbers(self, name: str) -> dict[str, float]:
        """Return the finite numbers of an object."""
        held = self.values.get(name)
        known = {str(key): measure(v) for key, v in held.items()} if isinstance(held, dict) else {}
        return {key: value for key, value in known.items() if math.isfinite(value)}

    def chosen(self, name: str) -> str:
        """Return what a setting was, in words."""
        value = self.values.get(name)
        if isinstance(value, list):
            return "-".join(map(str, value))
        return number(value) if isinstance(value, int) else self.text(name) or UNKNOWN

    def count(self, name: str) -> int:
        """Return how long a list is."""
        value = self.values.get(name)
        return len(value) if isinstance(value, list) else 0

    @property
    def machine(self) -> str:
        """Fingerprint of the machine."""
        return self.text("machine")

    @property
    def doubts(self) -> str:
        """What else computed while this was measured; nothing where nothing is known of it."""
        if not math.isfinite(self["cores"] + self["load"]):
            return ""
        shares = (self[name] for name in ("steal_share", "others_share"))
        known = (share if math.isfinite(share) else None for share in shares)
        return Seen(0, int(self["cores"]), self["load"], *known).warning or ""


class Step(Row):
    """A row of the suites `train` and `infer`."""

    @property
    def words(self) -> tuple[str, ...]:
        """Settings of the step but for the batch size, those at their defaults left out."""
        arch, model, storage, ids = map(self.text, ("arch", "model", "storage", "ids"))
        scale, pooling, threads = (
            measure(self.values.get(name), 1.0) for name in ("rows_scale", "pooling", "threads")
        )
        usual = self.text("suite") != "train" or self.text("optim") == "sgd"
        words = (
            self.text("suite"),
            arch if model in ("dlrm", "") else f"{arch} ({model})",
            f"dim {self.text('dim')}" if self.text("dim") else "",
            self.text("precision"),
            f"rows in {storage}" if storage != "fp32" else "",
            "" if usual else self.text("optim"),
            f"{ids} ids" if ids != "uniform" else "",
            f"{pooling:g} ids a table" if pooling != 1 else "",
            f"{100 * scale:g}% of the rows" if scale != 1 else "",
            f"{threads:g} threads" if threads != self["cores"] else "",
        )
        return tuple(filter(None, words))

    @property
    def setting(self) -> str:
        """Name of the step but for the batch size, e.g. `train · criteo-kaggle · fp32`."""
        return " · ".join(self.words)

    @property
    def label(self) -> str:
        """Name of the step with its batch size."""
        batch = self["batch_size"]
        size = "1 sample" if batch == 1 else f"{batch:,.0f} samples"
        return " · ".join((*self.words[:2], size, *self.words[2:]))

    @property
    def unnamed(self) -> list[Row]:
        """The next of the changes that would help most, behind those that the verdict names."""
        changes = [change for change in self.objects("changes") if math.isfinite(change["gain"])]
        return changes[NAMED:CHANGES]

    @property
    def published(self) -> list[tuple[str, float]]:
        """On what others have measured this, and the seconds that it took."""
        names = [
            name.removeprefix("published_").removesuffix("_s")
            for name in self.values
            if name.startswith("published_") and name.endswith("_s")
        ]
        return [(name, self[f"published_{name}_s"]) for name in names if name != "ours"]


@dataclass(frozen=True, slots=True)
class Host:
    """A row of the suite `machine`."""

    machine: str
    """Fingerprint of the machine."""
    facts: Facts
    ceilings: Ceilings

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Host":
        """Return the machine of a row; see `Facts.from_dict` and `Ceilings.from_dict`."""
        facts, ceilings = Facts.from_dict(values["facts"]), Ceilings.from_dict(values["ceilings"])
        return cls(str(values.get("machine", "")), facts, ceilings)

    @property
    def caches(self) -> list[tuple[str, int]]:
        """Names and bytes of the caches, the largest last."""
        named = [(f"L{c.level} {binary(c.size_bytes)}", c.size_bytes) for c in self.facts.caches]
        return sorted(named, key=lambda cache: cache[1])


@dataclass(frozen=True, slots=True)
class Results:
    """Rows by their suite, in their order."""

    rows: Sequence[Mapping[str, Any]]
    hosts: dict[str, Host]
    """By their fingerprints; of a machine that was measured twice the last row."""
    steps: list[Step]
    cases: list[Row]
    """Operators alone, of the suite `ops`."""
    variants: list[Row]
    """Ways to use fewer bits, of the suite `numerics`."""
    serving: list[Row]
    """A server under load, of the suite `serve`."""
    predictions: list[Row]
    left_out: list[str]
    """Which rows cannot be drawn, and why."""

    @property
    def machines(self) -> list[str]:
        """Fingerprints of all rows that are drawn."""
        rows = (*self.steps, *self.cases, *self.variants, *self.serving)
        return list(dict.fromkeys([*self.hosts, *(row.machine for row in rows)]))

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

    @property
    def headlines_first(self) -> list[Step]:
        """All steps, `headlines` before the others."""
        first = self.headlines
        return [*first, *(step for step in self.steps if step not in first)]


def sort(rows: Sequence[Mapping[str, Any]]) -> Results:
    """Return rows by their suite."""
    drawn: dict[str, list[Mapping[str, Any]]] = {name: [] for name in NEEDED}
    left_out = []
    for place, values in enumerate(rows, start=1):
        suite = str(values.get("suite", ""))
        if why := next(_refusals(suite, values), None):
            left_out.append(f"row {place} ({suite or 'no suite'}): {why}")
        else:
            drawn[suite].append(values)
    hosts = {host.machine: host for host in map(Host.of, drawn["machine"])}
    steps = [Step(values) for suite in ("train", "infer") for values in drawn[suite]]
    steps.sort(key=lambda s: (s.text("suite") != "train", s.setting, s["batch_size"]))
    cases, variants, serving, predictions = (
        [Row(values) for values in drawn[name]]
        for name in ("ops", "numerics", "serve", "prediction")
    )
    return Results(rows, hosts, steps, cases, variants, serving, predictions, left_out)


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
        if not isinstance(listed, list) or not Row(values).objects("operators"):
            yield 'expected a list of objects in "operators"'
        for name in ("step_ms", "batch_size"):
            if not 0 < measure(values[name]) < math.inf:
                yield f"{name} is {values[name]}, expected a number above 0"
    if suite == "machine":
        try:
            can = Host.of(values).ceilings
        except KeyError as error:
            yield f'its facts or ceilings lack "{error.args[0]}"'
            return
        except (AttributeError, TypeError, ValueError) as error:
            yield f"its facts or ceilings are damaged ({error})"
            return
        rates = [*can.copy.values(), *can.gather_by_threads.values(), can.call_s]
        rates += [rate for by_threads in can.flops.values() for rate in by_threads.values()]
        points = (*can.gather, *can.summed)
        rates += [v for p in points for v in (p.row_bytes, p.table_bytes, p.row_s)]
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
