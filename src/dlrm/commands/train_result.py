"""What `dlrm train` came to."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.commands.metric_columns import METRICS, known, of_labels, shown
from dlrm.reporting.run import next_words
from dlrm.run import Run
from dlrm.training.config import from_dict
from dlrm.training.ensemble import mean_of_members, model_name
from dlrm.training.evaluate import HELD_OUT
from dlrm.training.load import TrainingStats, training_stats

LEFT_OUT = ("gauc", "ece")
"""Metrics that the table after a training has no room for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a training run came to."""

    run: Path
    """The run directory."""
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    evaluations: dict[str, dict[str, Any]]
    """Split -> its `metrics`, and where known those of the `members`, the `optimum`, the
    `trees` and the `baseline`; of several labels those of the first, and of each below `labels`."""
    effort: TrainingStats
    """What the training took; of an ensemble all members together."""
    report: Path | None
    """report.html; None without the extra that draws it."""

    @property
    def split(self) -> str | None:
        """The split whose metrics stand for the run: test, or else validation."""
        return next((name for name in ("test", "validation") if name in self.evaluations), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready; metrics of the test split stand at the top."""
        judged = self.evaluations[self.split] if self.split else {}
        by_label = {name: _beside(label) for name, label in of_labels(judged) if name}
        return {
            "run": str(self.run),
            "model": self.model,
            "split": self.split,
            **_beside(judged),
            **({"labels": by_label} if by_label else {}),
            "steps": self.effort.step,
            "elapsed_s": self.effort.elapsed_s,
            "samples_per_s": self.effort.samples_per_s,
            "report": str(self.report) if self.report else None,
        }

    @property
    def next_command(self) -> str:
        """A command that uses the model."""
        return shlex.join(next_words(Run(self.run)))

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = [self._grid()] if self.evaluations else []
        if not self.evaluations:
            lines = ["No rows were held back, so nothing was measured: see --prepare.fractions"]
        lines += self._undefined()
        took = self.effort
        lines.append(
            f"{took.step:,} steps in {took.elapsed_s:.1f} s, {took.samples_per_s:,.0f} samples/s"
        )
        if self.report:
            lines.append(f"Report: {self.report}")
        else:
            lines.append("No report.html: it needs pip install 'opendlrm[report]'")
        return Group(*lines)

    def _undefined(self) -> list[str]:
        """Return why splits lack metrics."""
        return [
            f"{split}{f', {label}' if label else ''}: no AUC, because all "
            f"{values['metrics']['samples']:,} rows have the same label"
            for split, evaluation in self.evaluations.items()
            for label, values in of_labels(evaluation)
            if values["metrics"].get("auc", 0) is None
        ]

    def _grid(self) -> RenderableType:
        """Return a table with rows for each split, of several labels a block for each of them."""
        first = next(iter(self.evaluations.values()))
        names = known(first["metrics"], *LEFT_OUT)
        grid = terminal.table(None, "", *(METRICS[name] for name in names))
        for label, _ in of_labels(first):
            if label:
                grid.add_row(label, style="bold")
            for split, evaluation in self.evaluations.items():
                mine = dict(of_labels(evaluation))[label]
                for who, metrics in self._rows(split, mine, names).items():
                    grid.add_row(who, *(shown(metrics.get(name)) for name in names))
        return grid

    def _rows(
        self, split: str, evaluation: dict[str, Any], names: list[str]
    ) -> dict[str, Mapping[str, float | None]]:
        """Return the metrics of the model, and of what stands beside it, by name."""
        members = evaluation["members"]
        rows = {f"{split}: {self.model if members else 'model'}": evaluation["metrics"]}
        if members:
            rows["  each alone, mean"] = mean_of_members(members, names)
        if baseline := evaluation["baseline"]:
            rows[f"  baseline {baseline['name']}"] = baseline["metrics"]
        if trees := evaluation.get("trees"):
            rows["  LightGBM, its defaults"] = trees
        if evaluation["optimum"]:
            rows["  optimum"] = evaluation["optimum"]
        return rows


def _beside(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a model, and those of what stands beside it."""
    return {
        **evaluation.get("metrics", {}),
        "members": evaluation.get("members"),
        "optimum": evaluation.get("optimum"),
        "baseline": (evaluation.get("baseline") or {}).get("metrics"),
        "trees": evaluation.get("trees"),
    }


def result_of(run: Run) -> TrainResult:
    """Return what a finished run came to."""
    config = from_dict(run.config)
    known = {split: run.evaluation(split) for split in HELD_OUT}
    report = run.path / "report.html"
    return TrainResult(
        run=run.path,
        model=model_name(config),
        evaluations={
            split: evaluation for split, evaluation in known.items() if evaluation is not None
        },
        effort=training_stats(run),
        report=report if report.is_file() else None,
    )
