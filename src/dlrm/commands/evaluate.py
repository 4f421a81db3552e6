"""`dlrm eval`: how good a trained model is on a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import RenderableType

from dlrm import terminal
from dlrm.commands.train import METRICS
from dlrm.data.store import Dataset
from dlrm.errors import DatasetError, RunError
from dlrm.nn.precision import resolve
from dlrm.run import Run
from dlrm.training.config import from_dict
from dlrm.training.evaluate import optimum, predict_split
from dlrm.training.loop import load_best


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """How good a model is on a split."""

    run: Path
    data: Path
    split: str
    metrics: dict[str, Any]
    optimum: dict[str, Any] | None
    """The metrics of the truth, where it is known."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.run),
            "data": str(self.data),
            "split": self.split,
            **self.metrics,
            "optimum": self.optimum,
        }

    def __rich__(self) -> RenderableType:
        grid = terminal.table(f"{self.run} on {self.data}", "", "samples", *METRICS.values())
        rows = {f"{self.split}: model": self.metrics}
        if self.optimum:
            rows["optimum"] = self.optimum
        for who, metrics in rows.items():
            cells = ["-" if metrics[m] is None else f"{metrics[m]:.4f}" for m in METRICS]
            grid.add_row(who, f"{metrics['samples']:,}", *cells)
        return grid


def evaluate(
    run: Annotated[Path, tyro.conf.Positional], *, data: str | None = None, split: str = "test"
) -> EvalResult:
    """Measure the best checkpoint of a run on a split.

    Args:
        run: The run directory.
        data: A prepared dataset with the schema of the run; its own by default.
        split: train, validation or test.

    Raises:
        RunError: The run has no model yet, or was trained on another schema.
        DatasetError: The dataset is damaged, or its split has no rows.

    """
    opened = Run.open(run)
    config = from_dict(opened.config)
    dataset = Dataset.open(Path(data if data is not None else opened.dataset["path"]))
    if difference := opened.schema.difference(dataset.schema):
        raise RunError(f"{run} was trained on another schema than {dataset.path}: {difference}")
    rows = dataset.split(split)
    if not len(rows):
        raise DatasetError(f"{dataset.path}: the split {split} has no rows")
    model = load_best(opened, config.model.build(opened.schema, resolve(config.precision)))
    best = optimum(rows)
    return EvalResult(
        run=run,
        data=dataset.path,
        split=split,
        metrics=predict_split(model, rows, config.eval.batch_size).compute().to_dict(),
        optimum=best.to_dict() if best else None,
    )
