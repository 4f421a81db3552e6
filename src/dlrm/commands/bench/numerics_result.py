"""What `dlrm bench numerics` found: a table and a conclusion, or JSON-ready."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.bench.numerics.verdict import NEUTRAL, conclusion

METRICS = {"normalized_entropy": "NE", "log_loss": "log loss", "calibration": "calibr."}
"""Shown beside the AUC, the first in any case."""
WIDE = 100
"""Columns of a terminal that has room for all of them."""
STYLES = {"neutral": "green", "better": "green", "worse": "red", "no verdict": "yellow"}
"""How verdicts are coloured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsResult:
    """What fewer bits cost and bring."""

    rows: list[dict[str, Any]]
    """One a variant, of the suite `numerics`, the reference first."""
    stopped: bool
    """By the user."""
    warning: str | None
    """Why speeds are doubtful."""
    page: Path | None = None

    @property
    def status(self) -> int:
        """As of any command that the user stopped."""
        return 130 if self.stopped else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        first = self.rows[0]
        return {
            "recipe": first["recipe"],
            "data": first["data"],
            "seeds": len(first["seeds"]),
            "test_rows": first["test_rows"],
            "noise_auc": first["noise_auc"],
            "neutral": NEUTRAL,
            "verdict": conclusion(self.rows),
            "stopped": self.stopped,
            "warning": self.warning,
            "report": str(self.page) if self.page else None,
            "rows": self.rows,
        }

    def __rich__(self) -> RenderableType:
        first = self.rows[0]
        parts: list[RenderableType] = [self._table()]
        parts.append(
            "Changes are from fp32 of the same seed, means over seeds, with 95% intervals over "
            f"seeds and test rows; neutral: the whole interval lies within ±{NEUTRAL:g}. "
            "Bytes: of table rows that a sample reads. Score and train: speed, times fp32's, of "
            "scoring and of a training step. Bold: no other has a higher AUC at as few bytes."
        )
        parts.append(Text(conclusion(self.rows), style="bold"))
        parts += [
            Text(f"Failed: {row['variant']}: {row['error']}", style="bold")
            for row in self.rows
            if row["error"] is not None
        ]
        if self.stopped:
            said = f"Stopped: fp32 was measured with {_seeds(first)}."
            parts.append(Text(said, style="bold"))
        if self.warning:
            parts.append(Text(f"Speeds are doubtful: {self.warning}.", style="bold"))
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)

    def _table(self) -> Table:
        first = self.rows[0]
        names = METRICS if terminal.out.width >= WIDE else dict(islice(METRICS.items(), 1))
        noise = first["noise_auc"]
        said = "" if noise is None else f", whose luck moves the AUC by ±{_short(noise)}"
        grid = terminal.table(
            f"{first['recipe']} on {first['data']}, {first['test_rows']:,} test rows, "
            f"{_seeds(first)}{said}",
            "", "AUC", "95%", *names.values(), "bytes", "score", "train",
        )  # fmt: skip
        grid.add_column("verdict", no_wrap=True)
        # Lines between so many columns leave no room for the figures.
        grid.box, grid.pad_edge, grid.collapse_padding = box.SIMPLE_HEAD, False, True
        for row in self.rows:
            if not row["seeds"]:
                blank = [""] * (len(names) + 5)
                grid.add_row(row["variant"], *blank, Text("failed", style="bold red"))
                continue
            word = "failed" if row["error"] else row["verdict"] or ""
            grid.add_row(
                row["variant"],
                *_accuracy(row, names),
                f"{row['bytes_per_sample']:,.0f}",
                _times(row["speedup"]),
                _times(row["training_speedup"]),
                Text(word, style=STYLES.get(word, "bold red" if row["error"] else "")),
                style="bold" if row["pareto"] else "",
            )
        return grid


def _accuracy(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the changes; of the reference what the changes are from."""
    if row["kind"] == "reference":
        means = [fmean(row[metric]) for metric in names]
        return [_short(row["auc_mean"]), "", *(f"{mean:.4f}".lstrip("0") for mean in means)]
    low, high = row["auc_change_low"], row["auc_change_high"]
    return [
        _signed(row["auc_change"]),
        "" if low is None else f"±{_short((high - low) / 2)}",
        *(_signed(row[f"{metric}_change"]) for metric in names),
    ]


def _seeds(row: Mapping[str, Any]) -> str:
    count = len(row["seeds"])
    return f"{count} seed{'s' if count != 1 else ''}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("0.", ".", 1).replace("-.00000", "+.00000")


def _short(value: float) -> str:
    return f"{value:.5f}".removeprefix("0")


def _times(speedup: float | None) -> str:
    return "" if speedup is None else f"{speedup:.2f}"
