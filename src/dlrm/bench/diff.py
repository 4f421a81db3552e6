"""Two files of results beside each other: what got slower, what faster, and by how much.

Rows are compared that measure the same, figure by figure. Where intervals overlap there is no
verdict. Several rows of one file are repeats, whose spread counts too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, Literal

from dlrm.bench.figure import PEERS, Figure, figures, key, operators, settings
from dlrm.bench.results import SCHEMA, VERSIONS, load
from dlrm.bench.watch import OTHERS_LIMIT, STOLEN_LIMIT
from dlrm.errors import ConfigError

Row = Mapping[str, Any]
Sides = tuple[Sequence[Row], Sequence[Row]]
Groups = dict[tuple[str, str], list[Row]]
Verdict = Literal["slower", "faster", "worse", "better", "no verdict"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure in both files."""

    name: str
    before: Figure
    after: Figure

    @property
    def ratio(self) -> tuple[float | None, float | None, float | None]:
        """After over before, and what is possible within both intervals; None where unknown."""
        a, b = self.before, self.after
        return _over(b.value, a.value), _over(b.low, a.high), _over(b.high, a.low)

    @property
    def slowdown(self) -> float:
        """How many times as long it takes; 1 where that is unknown, or no matter of time."""
        ratio = self.ratio[0]
        if not ratio or self.before.kind == "accuracy":
            return 1.0
        return ratio if self.before.kind == "time" else 1 / ratio

    @property
    def verdict(self) -> Verdict:
        """Whether the intervals of the two figures lie apart, and which is better."""
        a, b = self.before, self.after
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return "no verdict"
        if a.low <= b.high and b.low <= a.high:
            return "no verdict"
        grew = b.low > a.high
        if a.kind == "accuracy":
            return "better" if grew else "worse"
        return "slower" if grew == (a.kind == "time") else "faster"

    @property
    def of_peer(self) -> bool:
        """Whether it is the figure of another program, measured beside ours."""
        return self.name.startswith(PEERS)

    @property
    def of_tail(self) -> bool:
        """Whether it is a percentile of the slowest rounds, of which there are too few to judge."""
        return self.name.removesuffix("_ms").endswith("p95")

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison JSON-ready."""
        a, b = self.before, self.after
        ratio, *possible = self.ratio
        return {
            "figure": self.name,
            "before": a.value,
            "before_interval": None if a.low is None else [a.low, a.high],
            "after": b.value,
            "after_interval": None if b.low is None else [b.low, b.high],
            "difference": b.value - a.value,
            "ratio": ratio,
            "ratio_interval": None if None in possible else possible,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """All rows of both files that measure the same."""

    settings: dict[str, Any]
    figures: tuple[Compared, ...]
    operators: tuple[Compared, ...]
    """Operators that the step is made of, in milliseconds; the longest first."""
    failed: tuple[str | None, str | None]
    """Why it could not be measured, before and after."""
    repeats: tuple[int, int]

    @property
    def cause(self) -> tuple[Compared, float] | None:
        """The operator that changed most in the way of the step, and its share of the change."""
        changes = [one.after.value - one.before.value for one in self.operators]
        whole = sum(changes)
        if not whole:
            return None
        shares = [change / whole for change in changes]
        return self.operators[shares.index(max(shares))], max(shares)


@dataclass(frozen=True, slots=True)
class Diff:
    """The rows of two result files, paired by what they measure."""

    pairs: tuple[Pair, ...]
    only_before: tuple[dict[str, Any], ...]
    only_after: tuple[dict[str, Any], ...]
    """Settings of rows that the other file does not have."""
    changed: dict[str, tuple[str, str]]
    """Commit, versions and products that are not the same, before and after."""
    notes: tuple[str, ...]
    """What makes the comparison doubtful."""

    @property
    def figures(self) -> list[Compared]:
        """The figures of all pairs."""
        return [figure for both in self.pairs for figure in both.figures]

    def slower(self, tolerance: float) -> list[tuple[Pair, Compared]]:
        """Return what got slower by more than a share of its time, worst first.

        Figures of others are none of ours, and a tail is a matter of a few rounds.
        """
        slower = [
            (both, figure)
            for both in self.pairs
            for figure in both.figures
            if figure.verdict == "slower" and figure.slowdown > 1 + tolerance
            if not figure.of_peer and not figure.of_tail
        ]
        return sorted(slower, key=lambda figure: -figure[1].slowdown)

    def broken(self) -> list[Pair]:
        """Return what could be measured before and fails now."""
        return [two for two in self.pairs if two.failed[1] and not two.failed[0]]


def diff(
    before: Path, after: Path, *, across_machines: bool = False, across_schemas: bool = False
) -> Diff:
    """Compare two files of results; `across` compares rows of different ones too, and says so.

    Raises:
        InputError: A file holds something else than rows, or nothing.
        ConfigError: They are of different machines or schemas, or measure nothing in common.

    """
    paths, sides = (before, after), (load(before), load(after))
    notes = _same_schema(paths, sides, across_schemas)
    notes += _same_machine(paths, sides, across_machines)
    machine = (lambda _: "") if across_machines else naming(sides)
    a, b = (_grouped(rows, lambda row: (machine(row), key(row))) for rows in sides)
    if not (shared := [setting for setting in a if setting in b]):
        raise ConfigError(f"{before} and {after} have no rows in common: {_apart(sides)}")
    for path, rows in zip(paths, sides, strict=True):
        if count := sum(map(_disturbed, rows)):
            few = f"{count} of {len(rows)} rows of {path}"
            notes.append(f"Something else took CPU time while {few} were measured")
    pairs = [_pair(a[setting], b[setting]) for setting in shared]
    return Diff(
        pairs=tuple(sorted(pairs, key=lambda both: _rank(both.settings))),
        only_before=_only(a, b),
        only_after=_only(b, a),
        changed=_changed(sides),
        notes=tuple(notes),
    )


def _grouped(rows: Sequence[Row], name: Callable[[Row], tuple[str, str]]) -> Groups:
    groups: Groups = defaultdict(list)
    for row in rows:
        groups[name(row)].append(row)
    return groups


def _only(these: Groups, others: Groups) -> tuple[dict[str, Any], ...]:
    named = [settings(rows[0]) for setting, rows in these.items() if setting not in others]
    return tuple(sorted(named, key=_rank))


def _rank(values: Mapping[str, Any]) -> list[tuple[str, bool, float, str]]:
    """Rank by suite, then by settings, numbers as numbers."""
    return [
        (name, False, value, "")
        if isinstance(value, (int, float))
        else (name, True, 0.0, str(value))
        for name, value in sorted(values.items(), key=lambda item: (item[0] != "suite", item[0]))
    ]


def _pair(before: Sequence[Row], after: Sequence[Row]) -> Pair:
    """Compare the rows of one setting, each file's at least one."""

    def compared(figures_of: Callable[[Row], Mapping[str, Figure]]) -> list[Compared]:
        a, b = ([figures_of(row) for row in rows] for rows in (before, after))
        # In the order of the rows that say most, whichever comes first in the file.
        by_figures = sorted(a, key=lambda names: (-len(names), *names))
        return [
            Compared(name, x, y)
            for name in dict.fromkeys(name for names in by_figures for name in names)
            if (x := _joined(a, name)) and (y := _joined(b, name))
        ]

    def failed(rows: Sequence[Row]) -> str | None:
        errors = [row.get("error") for row in rows]
        reasons = sorted(error for error in errors if isinstance(error, str))
        return reasons[0] if len(reasons) == len(rows) else None

    return Pair(
        settings=settings(before[0]),
        figures=tuple(compared(figures)),
        operators=tuple(sorted(compared(operators), key=lambda one: -one.before.value)),
        failed=(failed(before), failed(after)),
        repeats=(len(before), len(after)),
    )


def _joined(repeats: Sequence[Mapping[str, Figure]], name: str) -> Figure | None:
    """Return a figure of all repeats: the middle one, and the spread of all intervals."""
    figures = [repeat[name] for repeat in repeats if name in repeat]
    if len(figures) < 2:
        return figures[0] if figures else None
    return Figure(
        median(one.value for one in figures),
        min(one.value if one.low is None else one.low for one in figures),
        max(one.value if one.high is None else one.high for one in figures),
        figures[0].kind,
    )


def _over(a: float | None, b: float | None) -> float | None:
    if a is None or b is None or b <= 0 or a < 0:
        return None
    return a / b if isfinite(a / b) else None


def _same_schema(paths: tuple[Path, Path], sides: Sides, across: bool) -> list[str]:
    """Return a note where schemas differ, or are of another version, and that was asked for.

    Raises:
        ConfigError: It was not.

    """
    schemas = [{row.get("schema") for row in rows} for rows in sides]
    if len(schemas[0] | schemas[1]) == 1 and schemas[0] <= {None, SCHEMA}:
        return []
    a, b = (
        ", ".join(sorted("without a schema" if n is None else f"of schema {n}" for n in names))
        for names in schemas
    )
    difference = f"{paths[0]} has rows {a}, {paths[1]} {b}"
    if not across:
        raise ConfigError(
            f"{difference}; this version writes schema {SCHEMA}. Rows of several schemas are "
            "compared with --across-schemas: keys of the same name may not mean the same"
        )
    return [f"Across schemas: {difference}; keys of the same name may not mean the same"]


def _same_machine(paths: tuple[Path, Path], sides: Sides, across: bool) -> list[str]:
    """Return a note where machines differ and that was asked for.

    Raises:
        ConfigError: It was not.

    """
    machines = [set(map(naming(sides), rows)) for rows in sides]
    if machines[0] == machines[1] and (len(machines[0]) == 1 or not across):
        return []
    a, b = (" and ".join(sorted(names)) for names in machines)
    difference = f"{paths[0]} was measured on {a}, {paths[1]} on {b}"
    if not across:
        raise ConfigError(
            f"{difference}. Other hardware is compared with --across-machines: what differs may be "
            "the machine alone"
        )
    return [f"Across machines: {difference}; what differs may be the machine alone"]


def naming(sides: Sides) -> Callable[[Row], str]:
    """Return what names the machine of a row."""
    # Rows of before there were schemas have no fingerprint.
    known = all("schema" in row and row.get("machine") for rows in sides for row in rows)

    def name(row: Row) -> str:
        hardware = f"{row.get('cpu', 'an unknown CPU')} with {row.get('cores', '?')} cores"
        return f"{hardware} ({row['machine']})" if known else hardware

    return name


def _changed(sides: Sides) -> dict[str, tuple[str, str]]:
    """Return the commit, the versions and the products that are not the same, before and after."""
    changes = {}
    for name in ("commit", *VERSIONS, "products"):
        a, b = ({_worded(row[name]) for row in rows if name in row} for rows in sides)
        if a != b:
            changes[name] = (", ".join(sorted(a)) or "unknown", ", ".join(sorted(b)) or "unknown")
    return changes


def _worded(value: object) -> str:
    """Return a value as people write it.

    >>> _worded({"scores": "torch", "small": "kernels"})
    'scores: torch, small: kernels'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items()) or "none"
    return str(value)


def _apart(sides: Sides) -> str:
    """Say in which settings two files differ that have no row in common."""
    a, b = ([settings(row) for row in rows] for rows in sides)
    differences = []
    for name in dict.fromkeys(name for row in (*a, *b) for name in row):
        x, y = ({str(row.get(name, "not said")) for row in side} for side in (a, b))
        if not x & y:
            differences.append(f"{name} is {_few(x)} in the one, {_few(y)} in the other")
        if differences and name == "suite":
            break
    return "; ".join(differences) or "each setting occurs in both, but never with the same others"


def _few(words: Iterable[str]) -> str:
    ordered = sorted(words)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def _disturbed(row: Row) -> bool:
    stolen, others = row.get("steal_share") or 0.0, row.get("others_share") or 0.0
    return stolen > STOLEN_LIMIT or others > OTHERS_LIMIT
