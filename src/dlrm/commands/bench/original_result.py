"""What `dlrm bench original` found: as a table with intervals and a sentence, or JSON-ready."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.training import TrainMeasured


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOriginalResult:
    """Times of the training step."""

    arch: str
    rows_scale: float
    precision: str
    ids: str
    optim: str
    storage: str
    machine: dict[str, Any]
    warning: str | None
    """Why the figures are doubtful."""
    measured: TrainMeasured

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The figures of each batch size."""
        return [row.to_dict() for row in self.measured.rows]

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        names = ("arch", "rows_scale", "precision", "ids", "optim", "storage")
        return {name: getattr(self, name) for name in names}

    def _seen(self) -> dict[str, Any]:
        return {name: self.machine[name] for name in ("threads", "load", "steal_share")}

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        return [
            results.append("original", {**self.setting(), **row, **self._seen()}, out)
            for row in self.batches
        ][-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        batches = self.batches
        return {
            **self.setting(),
            "batches": batches,
            "speedup": {str(row["batch_size"]): row["speedup"] for row in batches},
            "max_abs_diff": self.measured.max_abs_diff,
            **self.machine,
        }

    def __rich__(self) -> RenderableType:
        batches = self.batches
        title = f"Training step, {self.arch}, {self.precision}, {self.ids} ids, {self.optim}"
        title += f", tables {self.storage}"
        against = any(row["speedup"] is not None for row in batches)
        columns = ["ours, ms", "original, ms", "speedup"] if against else ["ours, ms"]
        grid = terminal.table(title, "batch", *columns, "samples/s", "of the limit")
        for row in batches:
            cells = [middle(row["ours_ms"], row["ours_interval"])]
            if against:
                cells += [
                    middle(row["original_ms"], row["original_interval"]),
                    middle(row["speedup"], row["speedup_interval"]),
                ]
            cells += [f"{row['samples_per_s']:,.0f}", f"{row['roofline_share']:.0%}"]
            grid.add_row(f"{row['batch_size']:,}", *cells)
        parts: list[RenderableType] = [grid]
        parts += [line for row in batches if (line := _loading(row))]
        checks = ", ".join(f"{row['id_check_share']:.1%}" for row in batches)
        parts.append(f"Turning ids into rows and checking them: {checks} of the step")
        if (difference := self.measured.max_abs_diff) is not None:
            parts.append(f"First losses of both, from equal parameters, differ by {difference:.1e}")
        parts.append(self._sentence(batches, against))
        if self.warning:
            parts.append(f"Doubtful: {self.warning}")
        return Group(*parts)

    def _sentence(self, batches: Sequence[dict[str, Any]], against: bool) -> str:
        if not against:
            shares = ", ".join(f"{r['roofline_share']:.0%}" for r in batches)
            said = "dlrm bench original CLONE measures the original beside."
            return f"{shares} of the machine's limit; {said}"
        if any(row["verdict"].startswith("no verdict") for row in batches):
            return (
                "No verdict: the interval of a speedup contains 1; nothing else may run meanwhile."
            )
        speedups = ", ".join(f"{r['speedup']:.1f}x at {r['batch_size']:,}" for r in batches)
        return f"The original's speed, times: {speedups}."


def _loading(row: dict[str, Any]) -> str | None:
    """Say how the step with loading compares; None where it was not measured."""
    if "ours_loading_ms" not in row:
        return None
    said = f"With loading, batch {row['batch_size']:,}: ours {_ms(row['ours_loading_ms'])}, "
    said += f"of it {row['loading_waited_share']:.1%} waiting"
    if "original_loading_ms" in row:
        said += f"; original {_ms(row['original_loading_ms'])}, {row['loading_speedup']:.2f}x "
        said += "({:.3g} to {:.3g})".format(*row["loading_speedup_interval"])
    return said


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def middle(value: float, interval: Sequence[float]) -> str:
    """Return a median, and below it its 95% interval."""
    return f"{value:.3g}\n{interval[0]:.3g}–{interval[1]:.3g}"
