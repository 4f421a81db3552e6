"""`dlrm explain`: which columns matter to a trained model, over many rows and in single ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.commands.flags import Data
from dlrm.commands.metric_columns import METRICS
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.raw_columns import rows_of
from dlrm.data.resolve import named_files
from dlrm.data.scoring import FileRows, encode_pieces
from dlrm.data.sources.frame import is_frame
from dlrm.data.sources.source import OnBadRow
from dlrm.data.store import MANIFEST_FILE, Dataset, Split
from dlrm.errors import ConfigError, DatasetError
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.config import from_dict
from dlrm.training.device import DeviceName
from dlrm.training.ensemble import model_name
from dlrm.training.importance import (
    REPEATS,
    ROWS,
    SAMPLES,
    Importance,
    importance,
    row_effects,
)
from dlrm.training.predictor import Predictor
from dlrm.training.run_data import raw_rows, split_of

SHOWN = 50
"""Columns that a table lists."""
Block = tuple[Split | Encoded | None, NDArray[np.bool_]]
"""The good ones of some rows, and which of these they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainResult:
    """Which columns matter."""

    run: Path
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    data: str
    split: str | None
    """Split of a prepared dataset; None for raw rows."""
    measured: Importance | None
    """Over many rows; None where single ones were asked for."""
    rows: list[dict[str, Any]]
    """Single rows: the number of each as `row`, and below `labels` its effects, see
    `dlrm.training.importance.row_effects`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        about = {"run": str(self.run), "model": self.model, "data": self.data, "split": self.split}
        return about | (self.measured.to_dict() if self.measured else {"explained": self.rows})

    def __rich__(self) -> RenderableType:
        where = self.data if self.split is None else f"{self.data}, {self.split} rows"
        lines: list[RenderableType] = [Text(f"{self.run} ({self.model}) on {where}")]
        if self.measured:
            several = len(self.measured.labels) > 1
            for name, columns in self.measured.labels.items():
                lines.append(_importance(name if several else None, columns))
            lines.append(
                "By how much each metric is worse where a column's values are exchanged among "
                f"{self.measured.rows:,} rows."
            )
            listed = len(next(iter(self.measured.labels.values())))
            if listed > SHOWN:
                lines.append(f"{listed - SHOWN:,} columns that matter less: see --json")
        for row in self.rows:
            for name, effects in row["labels"].items():
                label = f", {name}" if len(row["labels"]) > 1 else ""
                title = f"row {row['row']}{label}: score {effects['score']:.4f}"
                lines.append(_effects(title, effects["columns"]))
        if self.rows:
            lines.append(
                "By how much the score lies above its mean with the values of other rows; 90% of "
                "the differences lie between the two ends."
            )
        return Group(*lines)


def _importance(label: str | None, columns: Sequence[Mapping[str, Any]]) -> Table:
    metrics = [name for name in METRICS if columns and name in columns[0]]
    heads = [head for name in metrics for head in (METRICS[name], "95% interval")]
    grid = terminal.table(label, "column", *heads)
    for values in columns[:SHOWN]:
        cells = [cell for name in metrics for cell in _cells(values, name, f"{name}_")]
        grid.add_row(str(values["column"]), *cells)
    return grid


def _effects(title: str, columns: Sequence[Mapping[str, Any]]) -> Table:
    grid = terminal.table(title, "column", "value", "effect", "90% between")
    for values in columns[:SHOWN]:
        value = "-" if values["value"] is None else str(values["value"])
        grid.add_row(str(values["column"]), value, *_cells(values, "effect", ""))
    return grid


def _cells(values: Mapping[str, Any], name: str, prefix: str) -> tuple[str, str]:
    """Return a change and its ends as tables show them."""
    if values[name] is None:
        return "-", ""
    ends = f"{values[f'{prefix}low']:+.4f} to {values[f'{prefix}high']:+.4f}"
    return f"{values[name]:+.4f}", ends


def explain(
    run: Annotated[Path | str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    *,
    data: Data | None = None,
    split: str = "validation",
    row: Annotated[Sequence[int], tyro.conf.UseAppendAction] = (),
    rows: int = ROWS,
    repeats: int = REPEATS,
    bad_rows: OnBadRow = "error",
    device: DeviceName = "auto",
) -> ExplainResult:
    """Say which columns matter to the best model of a run, on many rows or in single ones.

    On many rows the values of a column are exchanged among them, and what counts is how much worse
    the metrics get. In single rows its value is replaced by those of other rows, and what counts is
    how much the score changes. A column that says the same as another seems to matter less.

    Args:
        run: The run directory.
        data: Raw rows as the run was trained on, with labels unless single rows are asked for: a
            path, several with commas, a pattern, or in Python a frame; or a prepared dataset. The
            run's own by default.
        split: Of a prepared dataset: train, validation or test.
        row: A row to explain, counted from 1; may be given several times.
        rows: Rows to measure on at most, drawn at random.
        repeats: How often each column is exchanged among them.
        bad_rows: Stop at a raw row that is not what it should be, or leave it out; rows of files
            keep their numbers.
        device: Where the model computes; auto is a GPU where there is one.

    Raises:
        RunError: The run has no model yet, or was trained on another schema.
        DatasetError: There are no rows, or no such row.
        ConfigError: `rows` or `repeats` is not positive.
        InputError: A raw file is not what it should be; names file, line and column.

    """
    if rows < 1 or repeats < 1:
        raise ConfigError(f"rows is {rows} and repeats {repeats}: at least 1 of each is needed")
    opened = Run.open(run)
    predictor = Predictor.open(opened, device)
    features = predictor.features

    def score(encoded: Encoded) -> np.ndarray:
        return predictor.scores_of(encoded, raw=True)

    measured, explained = None, []
    raw = data is not None and (is_frame(data) or not (Path(data) / MANIFEST_FILE).is_file())
    if row:
        blocks = (
            _blocks(data, features, bad_rows)
            if raw
            else _all_good([split_of(opened, data, split)[1]])
        )
        asked, first = _asked(blocks, row, features.schema)
        others = _others(opened, first, features.schema)
        explained = [
            {"row": number, "labels": row_effects(score, asked[number], others, features)}
            for number in row
        ]
    else:
        source = (
            raw_rows(data, opened, features, bad_rows).split("test")
            if raw
            else split_of(opened, data, split)[1]
        )
        with terminal.progress() as bar:
            task = bar.add_task("columns", total=len(features.needed))
            measured = importance(
                score,
                source,
                features,
                rows=rows,
                repeats=repeats,
                tick=lambda: bar.advance(task),
            )
        if measured is None:
            raise DatasetError("no row has a weight, or the model has no column")
    return ExplainResult(
        run=opened.path,
        model=model_name(from_dict(opened.config)),
        data=opened.dataset["path"] if data is None else "frame" if is_frame(data) else str(data),
        split=None if raw else split,
        measured=measured,
        rows=explained,
    )


def _blocks(data: Any, features: Features, bad_rows: OnBadRow) -> Iterator[Block]:
    """Yield raw rows, whether they have labels or not."""
    if is_frame(data):
        yield from _all_good(encode_pieces(features, data))
        return
    for block in FileRows(features, named_files([data]), bad_rows).blocks():
        yield block.encoded, block.good


def _all_good(blocks: Iterable[Split | Encoded]) -> Iterator[Block]:
    for block in blocks:
        yield block, np.ones(len(block), np.bool_)


def _asked(
    blocks: Iterable[Block], numbers: Sequence[int], schema: Schema
) -> tuple[dict[int, Encoded], Split | Encoded]:
    """Return the rows of some numbers, counted from 1 over all blocks, and the first block."""
    asked, before, first = {}, 0, None
    for block, good in blocks:
        first = block if first is None else first
        for number in numbers:
            place = number - before - 1
            if not 0 <= place < len(good):
                continue
            if block is None or not good[place]:
                raise DatasetError(f"row {number} is not what it should be, and was left out")
            asked[number] = rows_of(block, np.array([good[:place].sum()]), schema)
        before += len(good)
    if absent := [number for number in numbers if number not in asked]:
        raise DatasetError(f"there is no row {absent[0]}: they are numbered 1 to {before}")
    assert first is not None
    return asked, first


def _others(run: Run, first: Split | Encoded, schema: Schema) -> Encoded:
    """Return rows to compare with: of the run's training data, or else of those at hand."""
    with suppress(DatasetError):
        first = Dataset.open(Path(run.dataset["path"])).split("train")
    return rows_of(first, np.random.default_rng(0).permutation(len(first))[:SAMPLES], schema)
