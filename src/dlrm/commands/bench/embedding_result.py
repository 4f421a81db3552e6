"""What `dlrm bench` found: as a table with intervals and a sentence, or JSON-ready."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import timer
from dlrm.bench.embedding import EmbeddingMeasured
from dlrm.bench.training import TrainMeasured


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTrainResult:
    """Times of the training step."""

    arch: str
    rows_scale: float
    precision: str
    ids: str
    optim: str
    storage: str
    machine: dict[str, Any]
    measured: TrainMeasured

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The figures of each batch size."""
        return [row.to_dict() for row in self.measured.rows]

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        names = ("arch", "rows_scale", "precision", "ids", "optim", "storage")
        return {name: getattr(self, name) for name in names}

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        return [timer.save("train", {**self.setting(), **row}, out) for row in self.batches][-1]

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
            cells = [_middle(row["ours_ms"], row["ours_interval"])]
            if against:
                cells += [
                    _middle(row["original_ms"], row["original_interval"]),
                    _middle(row["speedup"], row["speedup_interval"]),
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
        return Group(*parts)

    def _sentence(self, batches: Sequence[dict[str, Any]], against: bool) -> str:
        if not against:
            shares = ", ".join(f"{r['roofline_share']:.0%}" for r in batches)
            return f"{shares} of the machine's limit; --against CLONE measures the original beside."
        if any(row["verdict"].startswith("no verdict") for row in batches):
            return (
                "No verdict: the interval of a speedup contains 1; nothing else may run meanwhile."
            )
        speedups = ", ".join(f"{r['speedup']:.1f}x at {r['batch_size']:,}" for r in batches)
        return f"The original's speed, times: {speedups}."


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchEmbeddingResult:
    """Times of the embedding tables."""

    arch: str
    rows_scale: float
    ids: str
    optim: str
    storage: str
    machine: dict[str, Any]
    measured: list[EmbeddingMeasured]
    left_out: dict[str, str]
    """Peer -> why it was not measured."""

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        names = ("arch", "rows_scale", "ids", "optim", "storage")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            **self.setting(),
            "batches": [row.to_dict() for row in self.measured],
            "left_out": self.left_out,
            **self.machine,
        }

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        rows = ({**self.setting(), **row.to_dict()} for row in self.measured)
        return [timer.save("embedding", row, out) for row in rows][-1]

    def __rich__(self) -> RenderableType:
        title = f"Embedding tables, {self.arch}, {self.ids} ids, {self.optim}"
        title += f", tables {self.storage}"
        names = list(self.measured[0].peers)
        columns = [column for name in names for column in (f"{name}, ms", "speedup")]
        grid = terminal.table(title, "batch", "ours, ms", *columns)
        for measured in self.measured:
            row = measured.to_dict()
            cells = [_middle(row["ours_ms"], row["ours_interval"])]
            for name in names:
                cells += [
                    _middle(row[f"{name}_ms"], row[f"{name}_interval"]),
                    _middle(row[f"{name}_speedup"], row[f"{name}_speedup_interval"]),
                ]
            grid.add_row(f"{measured.batch_size:,}", *cells)
        reasons = (f"Without {name}: {why}" for name, why in self.left_out.items())
        return Group(grid, *reasons)


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


def _middle(value: float, interval: Sequence[float]) -> str:
    """Return a median, and below it its 95% interval."""
    return f"{value:.3g}\n{interval[0]:.3g}–{interval[1]:.3g}"
