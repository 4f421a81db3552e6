"""`dlrm predict`: raw data in, one score per row and label out."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import tyro
from numpy.typing import NDArray
from rich.text import Text

from dlrm import terminal
from dlrm.data.scoring import FileRows
from dlrm.errors import ConfigError
from dlrm.files import sync_file, sync_folder
from dlrm.schema import Schema
from dlrm.training.device import DeviceName
from dlrm.training.predictor import Predictor

WRITERS = {".parquet": pl.DataFrame.write_parquet, ".csv": pl.DataFrame.write_csv}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictResult:
    """Where the scores are."""

    out: Path
    rows: int
    mean_scores: dict[str, float | None]
    """Mean of each column of scores; None without rows."""
    bad_rows: int
    """Rows left out because they are not what they should be."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "mean_score": next(iter(self.mean_scores.values())),
            **({"mean_scores": self.mean_scores} if len(self.mean_scores) > 1 else {}),
            "bad_rows": self.bad_rows,
        }

    def __rich__(self) -> Text:
        skipped = f", {self.bad_rows:,} bad rows left out" if self.bad_rows else ""
        means = [
            f"mean {'-' if mean is None else f'{mean:.4f}'}"
            + (f" of {name}" if len(self.mean_scores) > 1 else "")
            for name, mean in self.mean_scores.items()
        ]
        return Text(f"{self.rows:,} scores, {', '.join(means)}, in {self.out}{skipped}")


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    raw: Annotated[list[Path], tyro.conf.Positional],
    *,
    out: Path,
    bad_rows: Literal["error", "skip"] = "error",
    device: DeviceName = "auto",
) -> PredictResult:
    """Score raw data with the best checkpoint of a run.

    Args:
        run: The run directory.
        raw: Files of the kind that the run was trained on, with or without labels, plain or .gz.
            Of a table, columns that the run does not know are ignored.
        out: Where to write the scores, .parquet or .csv: one column `score` in the order of the
            rows; of several labels `score_LABEL` for each. A score is a probability, or the
            prediction of a regression.
        bad_rows: Stop at a row that is not what it should be, or leave it out.
        device: Where the model computes; auto is a GPU where there is one.

    Raises:
        InputError: A raw file is not what it should be; names file, line and column.
        RunError: The run has no model yet.
        ConfigError: The scores cannot be written there, or there is no such device.

    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"{out}: scores are written as {' or '.join(WRITERS)}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    predictor = Predictor.open(run, device)
    source = FileRows(predictor.features, raw, bad_rows)
    pieces = [np.empty((0, predictor.schema.num_labels), np.float32)]
    with terminal.progress() as bar:
        task = bar.add_task("scoring", total=source.rows())
        for encoded in source.read():
            pieces.append(predictor.scores_of(encoded))
            bar.advance(task, len(encoded))
    scores = _frame(np.concatenate(pieces), predictor.schema)
    _write(scores, out)
    return PredictResult(
        out=out,
        rows=scores.height,
        mean_scores={name: _mean(scores[name]) for name in scores.columns},
        bad_rows=source.bad.total,
    )


def _frame(scores: NDArray[np.float32], schema: Schema) -> pl.DataFrame:
    """Return scores (n, K) as columns."""
    several = schema.num_labels > 1
    names = [f"score_{label}" for label in schema.labels] if several else ["score"]
    return pl.DataFrame(scores, schema=dict.fromkeys(names, pl.Float32), orient="row")


def _mean(scores: pl.Series) -> float | None:
    return None if scores.is_empty() else float(scores.cast(pl.Float64).mean())  # pyright: ignore[reportArgumentType]


def _write(scores: pl.DataFrame, out: Path) -> None:
    """Write scores to a file that is whole or not there."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        WRITERS[out.suffix](scores, temporary)
        sync_file(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(out.parent)
