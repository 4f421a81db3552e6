"""`dlrm predict`: raw data in, one score per row out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import tyro

from dlrm import terminal
from dlrm.batch import Batch
from dlrm.data.scoring import rows_of
from dlrm.data.tabular.encoder import open_encoder
from dlrm.errors import ConfigError
from dlrm.files import sync_file, sync_folder
from dlrm.metrics import sigmoid
from dlrm.run import Run
from dlrm.training.config import from_dict
from dlrm.training.evaluate import predict as predict_batches
from dlrm.training.load import load_model

WRITERS = {".parquet": pl.DataFrame.write_parquet, ".csv": pl.DataFrame.write_csv}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictResult:
    """Where the scores are."""

    out: Path
    rows: int
    mean_score: float | None
    bad_rows: int
    """Rows left out because they are not what they should be."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "mean_score": self.mean_score,
            "bad_rows": self.bad_rows,
        }

    def __rich__(self) -> str:
        mean = "-" if self.mean_score is None else f"{self.mean_score:.4f}"
        skipped = f", {self.bad_rows:,} bad rows left out" if self.bad_rows else ""
        return f"{self.rows:,} scores, mean {mean}, in {self.out}{skipped}"


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    raw: Annotated[list[Path], tyro.conf.Positional],
    *,
    out: Path,
    bad_rows: Literal["error", "skip"] = "error",
) -> PredictResult:
    """Score raw data with the best checkpoint of a run.

    Args:
        run: The run directory.
        raw: Files of the kind that the run was trained on, with or without labels, plain or .gz.
            Of a table, columns that the run does not know are ignored.
        out: Where to write the scores: one column `score` in the order of the rows, .parquet or
            .csv.
        bad_rows: Stop at a row that is not what it should be, or leave it out.

    Raises:
        InputError: A raw file is not what it should be; names file, line and column.
        RunError: The run has no model yet.

    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"{out}: scores are written as {' or '.join(WRITERS)}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    opened = Run.open(run)
    config = from_dict(opened.config)
    source = rows_of(open_encoder(run), raw, bad_rows)
    model = load_model(opened)

    def batches() -> Iterator[Batch]:
        with terminal.progress() as bar:
            task = bar.add_task("scoring", total=source.rows())
            for encoded in source.read():
                whole = Batch.of(encoded.dense, encoded.ids, encoded.labels, encoded.lists)
                for start in range(0, len(whole), config.eval.batch_size):
                    yield whole.slice(start, start + config.eval.batch_size)
                bar.advance(task, len(whole))

    logits, _ = predict_batches(model, batches()).arrays()
    scores = pl.DataFrame({"score": sigmoid(logits).astype("float32")})
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        WRITERS[out.suffix](scores, temporary)
        sync_file(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(out.parent)
    return PredictResult(
        out=out,
        rows=scores.height,
        mean_score=float(scores["score"].mean()) if scores.height else None,  # pyright: ignore[reportArgumentType]
        bad_rows=source.bad.total,
    )
