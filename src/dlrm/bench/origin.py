"""Where the rows of two files come from, and whether they can be compared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrm.bench.results import SCHEMA, VERSIONS
from dlrm.bench.watch import OTHERS_LIMIT, STOLEN_LIMIT
from dlrm.errors import ConfigError

Row = Mapping[str, Any]
Sides = tuple[Sequence[Row], Sequence[Row]]
Paths = tuple[Path, Path]


def same_schema(paths: Paths, sides: Sides, across: bool) -> list[str]:
    """Return a note where schemas differ and that was asked for.

    Raises:
        ConfigError: They differ, or are of another version of this program.

    """
    found = [{_schema(row) for row in rows} for rows in sides]
    if len(found[0] | found[1]) == 1 and found[0] <= {_schema({}), _schema({"schema": SCHEMA})}:
        return []
    a, b = (", ".join(sorted(names)) for names in found)
    said = f"{paths[0]} has rows {a}, {paths[1]} {b}"
    if not across:
        raise ConfigError(
            f"{said}; this version writes schema {SCHEMA}. Rows of several schemas are compared "
            "with --across-schemas: keys of the same name may not mean the same"
        )
    return [f"Across schemas: {said}; keys of the same name may not mean the same"]


def same_machine(paths: Paths, sides: Sides, across: bool) -> list[str]:
    """Return a note where machines differ and that was asked for.

    Raises:
        ConfigError: They differ.

    """
    name = naming(sides)
    found = [{name(row) for row in rows} for rows in sides]
    if found[0] == found[1] and (len(found[0]) == 1 or not across):
        return []
    a, b = (" and ".join(sorted(names)) for names in found)
    said = f"{paths[0]} was measured on {a}, {paths[1]} on {b}"
    if not across:
        raise ConfigError(
            f"{said}. Other hardware is compared with --across-machines: what differs may be the "
            "machine alone"
        )
    return [f"Across machines: {said}; what differs may be the machine alone"]


def naming(sides: Sides) -> Callable[[Row], str]:
    """Return what names the machine of a row."""
    # Rows of before there were schemas have no fingerprint.
    known = all("schema" in row and row.get("machine") for rows in sides for row in rows)

    def name(row: Row) -> str:
        said = f"{row.get('cpu', 'an unknown CPU')} with {row.get('cores', '?')} cores"
        return f"{said} ({row['machine']})" if known else said

    return name


def changed(sides: Sides) -> dict[str, tuple[str, str]]:
    """Return the commit and the versions that are not the same, before and after."""
    found = {}
    for name in ("commit", *VERSIONS):
        a, b = ({str(row[name]) for row in rows if name in row} for rows in sides)
        if a != b:
            found[name] = (", ".join(sorted(a)) or "unknown", ", ".join(sorted(b)) or "unknown")
    return found


def disturbed(paths: Paths, sides: Sides) -> list[str]:
    """Return a note for each file that was partly measured while something else computed."""
    said = []
    for path, rows in zip(paths, sides, strict=True):
        if count := sum(map(_disturbed, rows)):
            few = f"{count} of {len(rows)} rows of {path}"
            said.append(f"Something else took CPU time while {few} were measured")
    return said


def apart(sides: Sides, settings: Callable[[Row], Mapping[str, Any]]) -> str:
    """Say in which settings two files differ that have no row in common."""
    a, b = ([settings(row) for row in rows] for rows in sides)
    names = dict.fromkeys(name for each in (*a, *b) for name in each)
    said = []
    for name in names:
        x, y = ({_word(each.get(name)) for each in side} for side in (a, b))
        if not x & y:
            said.append(f"{name} is {_few(x)} in the one, {_few(y)} in the other")
        if said and name == "suite":
            break
    return "; ".join(said) or "each setting occurs in both, but never with the same others"


def _schema(row: Row) -> str:
    return f"of schema {row['schema']}" if "schema" in row else "without a schema"


def _disturbed(row: Row) -> bool:
    stolen, others = row.get("steal_share") or 0.0, row.get("others_share") or 0.0
    return stolen > STOLEN_LIMIT or others > OTHERS_LIMIT


def _word(value: Any) -> str:
    return "not said" if value is None else str(value)


def _few(words: Iterable[str]) -> str:
    found = sorted(words)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
