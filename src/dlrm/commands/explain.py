"""`dlrm explain`: which columns matter to a trained model, over many rows and in single ones."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.commands.evaluate import whole
from dlrm.commands.explain_result import ExplainResult
from dlrm.commands.flags import Data
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.raw_columns import rows_of
from dlrm.data.resolve import named_files
from dlrm.data.scoring import FileRows, encode_pieces
from dlrm.data.sources.frame import is_frame
from dlrm.data.sources.source import OnBadRow
from dlrm.data.store import MANIFEST_FILE, Dataset, Split
from dlrm.errors import ConfigError, DatasetError, RunError
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.config import from_dict
from dlrm.training.device import DeviceName
from dlrm.training.ensemble import model_name
from dlrm.training.importance import REPEATS, ROWS, SAMPLES, importance, row_effects
from dlrm.training.predictor import Predictor

Block = tuple[Split | Encoded | None, NDArray[np.bool_]]
"""The good ones of some rows, and which of these they are."""


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
            _blocks(data, features, bad_rows) if raw else _all_good([_split(opened, data, split)])
        )
        asked, first = _asked(blocks, row, features.schema)
        others = _others(opened, first, features.schema)
        explained = [
            {"row": number, "labels": row_effects(score, asked[number], others, features)}
            for number in row
        ]
    else:
        source = (
            whole(data, opened, features, bad_rows).split("test")
            if raw
            else _split(opened, data, split)
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


def _split(run: Run, data: Any, split: str) -> Split:
    """Return a split of a prepared dataset, the run's own or another of its schema."""
    dataset = Dataset.open(Path(data if data is not None else run.dataset["path"]))
    if difference := run.schema.difference(dataset.schema):
        raise RunError(
            f"{run.path} was trained on another schema than {dataset.path}: {difference}"
        )
    rows = dataset.split(split)
    if not len(rows):
        raise DatasetError(f"{dataset.path}: the split {split} has no rows")
    return rows


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
