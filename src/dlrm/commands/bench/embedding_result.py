"""What `dlrm bench embedding` found: as a table with intervals, or JSON-ready."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.embedding import EmbeddingMeasured
from dlrm.commands.bench.original_result import middle


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchEmbeddingResult:
    """Times of the embedding tables."""

    arch: str
    rows_scale: float
    ids: str
    optim: str
    storage: str
    machine: dict[str, Any]
    warning: str | None
    """Why the figures are doubtful."""
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

    def _seen(self) -> dict[str, Any]:
        return {name: self.machine[name] for name in ("threads", "load", "steal_share")}

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        rows = ({**self.setting(), **row.to_dict(), **self._seen()} for row in self.measured)
        return [results.append("embedding", row, out) for row in rows][-1]

    def __rich__(self) -> RenderableType:
        title = f"Embedding tables, {self.arch}, {self.ids} ids, {self.optim}"
        title += f", tables {self.storage}"
        names = list(self.measured[0].peers)
        columns = [column for name in names for column in (f"{name}, ms", "speedup")]
        grid = terminal.table(title, "batch", "ours, ms", *columns)
        for measured in self.measured:
            row = measured.to_dict()
            cells = [middle(row["ours_ms"], row["ours_interval"])]
            for name in names:
                cells += [
                    middle(row[f"{name}_ms"], row[f"{name}_interval"]),
                    middle(row[f"{name}_speedup"], row[f"{name}_speedup_interval"]),
                ]
            grid.add_row(f"{measured.batch_size:,}", *cells)
        reasons = (f"Without {name}: {why}" for name, why in self.left_out.items())
        doubts = [f"Doubtful: {self.warning}"] if self.warning else []
        return Group(grid, *reasons, *doubts)
