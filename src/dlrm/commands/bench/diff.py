"""`dlrm bench diff`: what got slower between two files of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.bench.diff import Compared, Diff, Pair
from dlrm.bench.diff import diff as compare
from dlrm.bench.figure import Figure
from dlrm.errors import ConfigError


def bench_diff(
    before: Annotated[Path, tyro.conf.Positional],
    after: Annotated[Path, tyro.conf.Positional],
    *,
    tolerance: float = 0.05,
    across_machines: bool = False,
    across_schemas: bool = False,
) -> "DiffResult":
    """Say what got slower between two files of results, and which operator did it.

    Rows are compared that measure the same: the same suite and equal settings. Where the
    intervals of a figure overlap there is no verdict. A file may hold a measurement several
    times; then the middle one counts, and the interval is the spread of all.

    The exit status is 1 where one of our figures got slower by more than the tolerance and the
    intervals do not overlap, or where something fails that could be measured before.

    Args:
        before: Rows of results, as --out of the other bench commands writes them.
        after: Rows of results to set beside them.
        tolerance: Share of its time by which a figure may get slower.
        across_machines: Compare rows of different hardware too.
        across_schemas: Compare rows of different versions of this format too.

    Raises:
        InputError: A file holds something else than rows, or nothing.
        ConfigError: They are of different machines or schemas, or measure nothing in common.

    """
    if tolerance < 0:
        raise ConfigError(f"tolerance is {tolerance}, expected 0 or more")
    diff = compare(before, after, across_machines=across_machines, across_schemas=across_schemas)
    return DiffResult(before=before, after=after, tolerance=tolerance, diff=diff)


SHOWN = 24
"""Rows of a table that is not cut to what has a verdict."""
SAID = 5
"""Sentences of one kind."""

PLAIN = frozenset((
    "suite", "operator", "variant", "what", "peer", "entry", "arch", "precision", "optim",
))  # fmt: skip
"""Settings that say what they are without their name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffResult:
    """Two files of results beside each other."""

    before: Path
    after: Path
    tolerance: float
    diff: Diff

    @property
    def status(self) -> int:
        """1 where something got slower by more than the tolerance, or fails now."""
        return 1 if self.diff.slower(self.tolerance) or self.diff.broken() else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        diff = self.diff
        return {
            "before": str(self.before),
            "after": str(self.after),
            "tolerance": self.tolerance,
            **{word.replace(" ", "_"): count for word, count in self._counts().items()},
            "verdict": " ".join(self.sentences()),
            "notes": list(diff.notes),
            "changed": {name: list(both) for name, both in diff.changed.items()},
            "pairs": [
                {
                    "settings": pair.settings,
                    "repeats": list(pair.repeats),
                    "failed_before": pair.failed[0],
                    "failed_after": pair.failed[1],
                    "figures": [figure.to_dict() for figure in pair.figures],
                    "operators": [operator.to_dict() for operator in pair.operators],
                }
                for pair in diff.pairs
            ],
            "only_before": list(diff.only_before),
            "only_after": list(diff.only_after),
        }

    def __rich__(self) -> RenderableType:
        diff = self.diff
        parts: list[RenderableType] = [Text(f"{note}.", style="bold") for note in diff.notes]
        parts += [f"{name}: {a} before, {b} after" for name, (a, b) in diff.changed.items()]
        parts.append(self._table())
        for path, only in ((self.before, diff.only_before), (self.after, diff.only_after)):
            if only:
                lines = [f"  {self._label(settings)}" for settings in only[:SAID]]
                lines += [f"  and {len(only) - SAID} more"] if len(only) > SAID else []
                parts.append(Text("\n".join([f"Only in {path}:", *lines])))
        return Group(*parts, Text("\n".join(self.sentences())))

    def sentences(self) -> list[str]:
        """Say what got slower and what did it, what fails now, and what nobody can tell."""
        figures, slower = self.diff.figures, self.diff.slower(self.tolerance)
        lines = [self._sentence(*figure) for figure in slower[:SAID]]
        if len(slower) > SAID:
            lines.append(f"Slower too: {len(slower) - SAID} more.")
        for pair in self.diff.broken()[:SAID]:
            lines.append(f"Fails now ({self._label(pair.settings)}): {pair.failed[1]}.")
        peers = {
            figure.name.removesuffix("_ms").removesuffix("_s")
            for figure in figures
            if figure.of_peer and figure.verdict == "slower" and not figure.of_tail
        }
        if peers:
            names = ", ".join(sorted(peers))
            lines.append(
                f"Not of this project, and slower too: {names}; look at the machine first."
            )
        if within := len(self.diff.slower(0.0)) - len(slower):
            lines.append(f"Slower by no more than the tolerance of {self.tolerance:.0%}: {within}.")
        words = [f"{count} {word}" for word, count in self._counts().items()]
        lines.append(f"Figures: {len(figures)}, of them {', '.join(words)}.")
        if unknown := sum(
            None in (figure.before.low, figure.after.low) and not figure.of_tail
            for figure in figures
        ):
            lines.append(
                f"Without an interval in one of the files, so that nothing can be said: {unknown}; "
                "repeats in the same file give one."
            )
        return lines

    def _sentence(self, pair: Pair, figure: Compared) -> str:
        subject = SUBJECTS.get(figure.name) or title(figure)
        line = f"{subject[:1].upper()}{subject[1:]} ({self._label(pair.settings)})"
        if figure.before.kind == "rate":
            line += f" is {times(figure)} times what it was"
        else:
            line += f" takes {times(figure)} times as long"
        if pair.cause is not None and figure.name in ("step_ms", "ours_ms"):
            most, share = pair.cause
            much = "most of it" if share >= 0.5 else "the largest part of it"
            line += f"; {much} in {most.name}: {value(most, most.before)} to "
            line += value(most, most.after)
        return f"{line}."

    def _table(self) -> RenderableType:
        heads = ("before", "after", "ratio", "verdict")
        grid = terminal.table(f"{self.before} and {self.after}", "what", "figure", *heads)
        for column in grid.columns[2:]:
            column.no_wrap = True
        grid.columns[1].justify = grid.columns[-1].justify = "left"
        every = len(self.diff.figures) <= SHOWN
        for pair in self.diff.pairs:
            label = self._label(pair.settings)
            for figure in pair.figures:
                if figure.verdict != "no verdict" or (every and not figure.of_tail):
                    grid.add_row(label, title(figure), *cells(figure))
                    label = ""
            for operator in pair.operators if not label else ():
                grid.add_row("", f"  {operator.name}", *cells(operator))
        if grid.row_count:
            return grid
        return f"{self.before} and {self.after}: none of the figures has a verdict."

    def _counts(self) -> dict[str, int]:
        words = [figure.verdict for figure in self.diff.figures]
        kinds = ["slower", "faster", *(w for w in ("worse", "better") if w in words), "no verdict"]
        return {kind: words.count(kind) for kind in kinds}

    def _label(self, settings: Mapping[str, Any]) -> str:
        """Return what tells these settings from the others of both files."""
        every = [pair.settings for pair in self.diff.pairs]
        every += [*self.diff.only_before, *self.diff.only_after]
        words = []
        if len({other["suite"] for other in every}) > 1:
            every = [other for other in every if other["suite"] == settings["suite"]]
            words.append(settings["suite"])
        for name, setting in settings.items():
            if name != "suite" and len({str(other.get(name)) for other in every}) > 1:
                noun = "batch" if name == "batch_size" else name.replace("_", " ")
                words.append(f"{setting}" if name in PLAIN else f"{noun} {setting}")
        return ", ".join(words) or settings["suite"]


SUBJECTS = {"step_ms": "a step", "ms": "it", "ours_ms": "ours"}
TITLES = {"ms": "time", "auc_change": "AUC", "call_s": "call"}


def title(compared: Compared) -> str:
    """Return what a figure is of: `original p95`, `lines/s`, `copy, 2 threads`."""
    name = compared.name
    match name.removesuffix("_s").split(" "):
        case ["gather", row, table, threads]:
            sizes = f"{row} B rows of {terminal.human_bytes(int(table))}"
            return f"{sizes}, {_threads(threads)}"
        case [what, threads] if threads.isdecimal():
            return f"{what}, {_threads(threads)}"
    if name in TITLES:
        return TITLES[name]
    for unit, after in (("_per_s", "/s"), ("_ms", ""), ("_s", "")):
        if name.endswith(unit):
            return name.removesuffix(unit).replace("_", " ") + after
    return name.replace("_", " ")


def cells(compared: Compared) -> tuple[str, str, str, str]:
    """Return before, after, ratio and verdict, as narrow as a terminal is."""
    possible = times(compared).replace(" (", "\n").replace(" to ", "–").removesuffix(")")
    verdict = "none" if compared.verdict == "no verdict" else compared.verdict
    return value(compared, compared.before), value(compared, compared.after), possible, verdict


def value(compared: Compared, figure: Figure) -> str:
    """Return a figure with three digits and its unit."""
    if figure.kind == "accuracy":
        return f"{figure.value:+.5f}"
    if figure.kind == "rate":
        return _scaled(figure.value, ((1e9, "G"), (1e6, "M"), (1.0, "")))
    seconds = figure.value if compared.name.endswith("_s") else figure.value / 1e3
    return _scaled(seconds, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")))


def _scaled(number: float, units: Sequence[tuple[float, str]]) -> str:
    """Return three digits of a number, in the largest unit that it reaches."""
    size, unit = next((one for one in units if number >= one[0]), units[-1])
    number /= size
    return f"{number:,.0f} {unit}".strip() if number >= 999.5 else f"{number:.3g} {unit}".strip()


def times(compared: Compared) -> str:
    """Return how many times it became, or the difference of an accuracy, with what is possible."""
    if compared.before.kind == "accuracy":
        return f"{compared.after.value - compared.before.value:+.5f}"
    ratio, low, high = compared.ratio
    if ratio is None:
        return "-"
    return f"{ratio:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def _threads(count: str) -> str:
    return "1 thread" if count == "1" else f"{count} threads"
