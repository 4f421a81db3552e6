"""`dlrm predict`: raw data in, one line out for each row: what is kept of it, and its scores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import tyro
from numpy.typing import NDArray
from rich.text import Text
from tyro.conf import arg

from dlrm import terminal
from dlrm.commands.scores_file import STANDARD_OUTPUT, ScoresFile
from dlrm.data.coverage import Coverage, Shares
from dlrm.data.resolve import named_files
from dlrm.data.scoring import FileBlock, FileRows
from dlrm.data.sources.reading import Header, Reading
from dlrm.data.sources.source import BadRows
from dlrm.errors import ConfigError
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.device import DeviceName
from dlrm.training.predictor import Predictor

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictResult:
    """The scores of raw files: where they are, and which rows have none."""

    out: Path
    rows: int
    """Rows of the files, each of which is a line of the scores."""
    mean_scores: dict[str, float | None]
    """Mean of each column of scores; None without rows."""
    bad: BadRows = field(default_factory=BadRows)
    """Rows without a score, because they are not what they should be."""
    columns: list[Shares] = field(default_factory=list)
    """Shares of the values of each column that training did not see, and of the missing ones."""
    warnings: list[str] = field(default_factory=list)
    """Which of these shares are much larger than in training."""

    @property
    def beside(self) -> bool:
        """Whether standard output has the scores, so that all else goes to standard error."""
        return self.out == STANDARD_OUTPUT

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The first rows without a score: their number, counted from 1 over all files, and why."""
        pairs = sorted(zip(self.bad.places, self.bad.first, strict=False))
        return [{"row": place + 1, "problem": problem} for place, problem in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "mean_score": next(iter(self.mean_scores.values())),
            **({"mean_scores": self.mean_scores} if len(self.mean_scores) > 1 else {}),
            "bad_rows": self.bad.total,
            "bad_row_reasons": self.bad.reasons,
            "skipped": self.skipped,
            "columns": [column.to_dict() for column in self.columns],
            "warnings": self.warnings,
        }

    def __rich__(self) -> Text:
        means = [
            f"mean {'-' if mean is None else f'{mean:.4f}'}"
            + (f" of {name}" if len(self.mean_scores) > 1 else "")
            for name, mean in self.mean_scores.items()
        ]
        scored = self.rows - self.bad.total
        lines = [f"{scored:,} scores, {', '.join(means)}, in {self.out}"]
        if self.bad.total:
            why = ", ".join(f"{kind} {rows:,}" for kind, rows in self.bad.reasons.items())
            lines.append(f"{self.bad.total:,} of {self.rows:,} rows have an empty score ({why}):")
            lines += [f"  row {row['row']}: {row['problem']}" for row in self.skipped[:_SHOWN]]
            if self.bad.total > _SHOWN:
                lines.append(f"  and {self.bad.total - _SHOWN:,} more")
        return Text("\n".join([*lines, *self.warnings]))


def predict(
    run: Annotated[Path | str, tyro.conf.Positional, arg(metavar="RUN")],
    raw: Annotated[list[Path], tyro.conf.Positional],
    *,
    out: Annotated[Path | str, arg(metavar="FILE")],
    keep: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    bad_rows: Literal["error", "skip"] = "error",
    separator: str | None = None,
    header: Header = "auto",
    skip_lines: int | None = None,
    comment: str | None = None,
    device: DeviceName = "auto",
) -> PredictResult:
    """Score raw data with the best checkpoint of a run.

    Args:
        run: The run directory.
        raw: Files of the kind that the run was trained on, with or without labels, plain or
            compressed, or patterns of them. Of a table, columns that the run does not know are
            ignored.
        out: Where to write the scores, .parquet or .csv, or - for CSV on standard output: a line
            for each row, in their order, with one column `score`; of several labels `score_LABEL`
            for each. A score is a probability, or the prediction of a regression.
        keep: A column to write beside the scores, such as an id; given several times, or with
            commas, several columns.
        bad_rows: Stop at a row that is not what it should be, or leave its score empty.
        separator: What is between fields, where it is not as in training.
        header: Whether a line names the columns, where that is not as in training.
        skip_lines: Lines above the header, where they are not as in training.
        comment: What lines that are no rows begin with, where it is not as in training.
        device: Where the model computes; auto is a GPU where there is one.

    Raises:
        UsageError: No file is named.
        InputError: A raw file is not what it should be; names file, line and column.
        RunError: The run has no model yet.
        ConfigError: The scores cannot be written there, or there is no such column or device.

    """
    files = named_files([Path(raw)] if isinstance(raw, str | Path) else [*map(Path, raw)])
    out = Path(out)
    if any(out.exists() and file.exists() and out.samefile(file) for file in files):
        raise ConfigError(f"--out {out} is one of the files to score, which it would replace")
    scores = ScoresFile(out)
    reading = Reading(separator=separator, header=header, skip_lines=skip_lines, comment=comment)
    opened = Run.open(run)
    predictor = Predictor.open(opened, device)
    source = FileRows(predictor.features, files, bad_rows, keep=keep, reading=reading)
    coverage = source.coverage = Coverage(predictor.features, opened.dataset.get("features", []))
    names = score_names(predictor.schema)
    rows, totals = 0, np.zeros(len(names))
    with terminal.progress() as bar, scores:
        task = bar.add_task("scoring", total=source.rows())
        for block in source.blocks():
            frame = _scored(block, predictor, names)
            scores.write(frame)
            rows += frame.height
            totals += np.array([frame[name].cast(pl.Float64).sum() for name in names])
            bar.advance(task, frame.height)
        if not rows:
            scores.write(pl.DataFrame(schema=dict.fromkeys(names, pl.Float32)))
    scored = rows - source.bad.total
    means = [float(total / scored) if scored else None for total in totals]
    return PredictResult(
        out=out,
        rows=rows,
        mean_scores=dict(zip(names, means, strict=True)),
        bad=source.bad,
        columns=coverage.shares(),
        warnings=coverage.warnings(),
    )


def score_names(schema: Schema) -> list[str]:
    """Return the names of the K columns of scores."""
    return [f"score_{label}" for label in schema.labels] if schema.num_labels > 1 else ["score"]


def _scored(block: FileBlock, predictor: Predictor, names: list[str]) -> pl.DataFrame:
    """Return the n rows of a block with their scores, null where a row is bad."""
    if taken := [name for name in names if name in block.columns.columns]:
        raise ConfigError(f"--keep {taken[0]}: a column of scores is called that")
    scores: NDArray[np.float32] = np.empty((0, len(names)), np.float32)
    if block.encoded is not None:
        scores = predictor.scores_of(block.encoded)
    good = pl.Series(block.good)
    numbers = (good.cum_sum().cast(pl.Int64) - 1).set(~good, None)
    columns = pl.DataFrame(scores, schema=dict.fromkeys(names, pl.Float32), orient="row")
    return pl.concat([block.columns, columns.select(pl.all().gather(numbers))], how="horizontal")
