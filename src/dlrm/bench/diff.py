"""Two files of results beside each other: what got slower, what faster, and by how much."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrm.bench import origin
from dlrm.bench.figure import key, settings
from dlrm.bench.pair import Compared, Pair, Row, pair
from dlrm.bench.results import load
from dlrm.errors import ConfigError

Groups = dict[tuple[str, str], list[Row]]


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two files."""

    pairs: tuple[Pair, ...]
    only_before: tuple[dict[str, Any], ...]
    only_after: tuple[dict[str, Any], ...]
    """Settings of rows that the other file does not have."""
    changed: dict[str, tuple[str, str]]
    """Commit and versions that are not the same, before and after."""
    notes: tuple[str, ...]
    """What makes the comparison doubtful."""

    def slower(self, tolerance: float) -> list[tuple[Pair, Compared]]:
        """Return what got slower by more than a share of its time, worst first.

        Figures of others are none of ours, and a tail is a matter of a few rounds.
        """
        found = [
            (pair, each)
            for pair in self.pairs
            for each in pair.figures
            if each.verdict == "slower" and each.slowdown > 1 + tolerance
            if not each.of_peer and not each.of_tail
        ]
        return sorted(found, key=lambda each: -each[1].slowdown)

    def broken(self) -> list[Pair]:
        """Return what could be measured before and fails now."""
        return [each for each in self.pairs if each.failed[1] and not each.failed[0]]


def diff(
    before: Path, after: Path, *, across_machines: bool = False, across_schemas: bool = False
) -> Diff:
    """Compare two files of results.

    Args:
        before: Rows of the first.
        after: Rows of the second.
        across_machines: Compare rows of different hardware too, and say so.
        across_schemas: Compare rows of different schemas too, and say so.

    Raises:
        InputError: A file holds something else than rows, or nothing.
        ConfigError: They are of different machines or schemas, or measure nothing in common.

    """
    paths, sides = (before, after), (load(before), load(after))
    notes = origin.same_schema(paths, sides, across_schemas)
    notes += origin.same_machine(paths, sides, across_machines)
    a, b = (_grouped(rows, None if across_machines else origin.naming(sides)) for rows in sides)
    if not (shared := [each for each in a if each in b]):
        said = origin.apart(sides, settings)
        raise ConfigError(f"{before} and {after} have no rows in common: {said}")
    return Diff(
        pairs=tuple(sorted((pair(a[each], b[each]) for each in shared), key=_order)),
        only_before=_only(a, b),
        only_after=_only(b, a),
        changed=origin.changed(sides),
        notes=(*notes, *origin.disturbed(paths, sides)),
    )


def _grouped(rows: Sequence[Row], machine: Callable[[Row], str] | None) -> Groups:
    """Return rows by machine and settings."""
    found: Groups = defaultdict(list)
    for row in rows:
        found["" if machine is None else machine(row), key(row)].append(row)
    return found


def _only(these: Groups, others: Groups) -> tuple[dict[str, Any], ...]:
    found = [settings(rows[0]) for each, rows in these.items() if each not in others]
    return tuple(sorted(found, key=_rank))


def _order(each: Pair) -> list[tuple[str, bool, float, str]]:
    return _rank(each.settings)


def _rank(found: Mapping[str, Any]) -> list[tuple[str, bool, float, str]]:
    """Rank by suite, then by settings, numbers as numbers."""
    return [
        (name, False, value, "")
        if isinstance(value, (int, float))
        else (name, True, 0.0, str(value))
        for name, value in sorted(found.items(), key=lambda item: (item[0] != "suite", item[0]))
    ]
