"""Any rows -> features, fitted on the training rows or known from a run, and blocks of arrays.

The raw rows become parts on disk; the schema is given, said by their format, or inferred from them;
rows are checked and divided into splits; features are fitted, one column at a time; and block by
block the rows become arrays. Memory holds a column, some bytes a row, and the distinct values of
categories.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm import terminal
from dlrm.data.checked import TRAIN, CheckedTable, check_rows, check_table
from dlrm.data.coverage import Coverage
from dlrm.data.encoded import Encoded
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.fit import fit, grow
from dlrm.data.features.list import List
from dlrm.data.features.rows import Rows as RawRows
from dlrm.data.features.show import show
from dlrm.data.features.table_schema import check_columns, inferred_schema
from dlrm.data.options import PrepareConfig
from dlrm.data.raw_columns import rows_of
from dlrm.data.scoring import check_columns as check_needed
from dlrm.data.sources.parts import Part, spilled
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.reading import Reading
from dlrm.data.sources.source import BadRows, Source, Table, has_fixed_format
from dlrm.data.split import Protocol, Rows, pieces
from dlrm.data.store import FEATURES_FILE
from dlrm.data.threads import in_order
from dlrm.errors import DatasetError

TRUTH = "truth"
"""The column of a source that knows the probability that each label was drawn with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Features of a run, and whether they take up new values of their categories."""

    features: Features
    grows: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these features from others."""
        assert self.features.folder is not None
        digest = hashlib.sha256()
        for name in (FEATURES_FILE, *self.features.files):
            with (self.features.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"features_of": digest.hexdigest(), "grows": self.grows}


class Block(NamedTuple):
    """Some rows in their order, and the splits that they go to."""

    encoded: Encoded
    """With labels, and with weights and the truth where there are any."""
    pieces: list[tuple[str, Rows]]
    """Names of splits, and which rows go there."""


class Fitted:
    """Features, and the rows of a source as they encode them.

    Args:
        features: Fitted, or known.
        table: Their rows.
        fitted_numbers: Place of a feature, and name of one of its numbers -> its values (n,) for
            the training rows, computed out of fold; empty for features of another run.
        bad_rows: Rows that were left out.
        truth: Whether the probability behind each label is known.
        notes: What to say of how rows were divided into splits.

    """

    def __init__(
        self,
        features: Features,
        table: CheckedTable,
        *,
        fitted_numbers: Mapping[tuple[int, str], NDArray[np.float32]],
        bad_rows: BadRows,
        truth: bool = False,
        notes: tuple[str, ...] = (),
    ):
        self.features, self.bad_rows, self.truth, self.notes = features, bad_rows, truth, notes
        self._table, self._coverage = table, Coverage(features)
        numbers = [
            (place, model_input.name)
            for place, feature in enumerate(features.features)
            for model_input in feature.inputs()
            if model_input.num_embeddings is None
        ]
        self._fitted_numbers = {
            numbers.index(place): values for place, values in fitted_numbers.items()
        }
        # Those that are numbered over the whole of a log, or before, are counted in all rows.
        fitted = bool(fitted_numbers) or not features.columns.whole_log
        self._counted = table.where == TRAIN if fitted else ~table.bad

    @property
    def rows(self) -> int:
        """Good rows of the source."""
        return self._table.good_rows

    @property
    def counted_rows(self) -> int:
        """Rows in which values were counted: the good ones, or those that train."""
        return int(self._counted.sum())

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows, once; the next ones are computed while some are used."""
        table, weights = self._table, self._table.weights
        # Each training row's place among them.
        rank, start = np.cumsum(table.where == TRAIN) - 1, 0
        names = [*self.features.needed, *([TRUTH] if self.truth else [])]
        frames = (frame for frame in table.raw.blocks(names))
        for frame, rows, encoded in in_order(self._encode, frames, 2):
            here = slice(start, start := start + frame.height)
            self._count(encoded, frame, rows, here)
            where = table.where[here]
            train = where == TRAIN
            for column, numbers in self._fitted_numbers.items():
                encoded.dense[train, column] = numbers[rank[here][train]]
            samples = replace(
                encoded,
                labels=table.labels[here],
                weights=None if weights is None else weights[here],
                truth=frame[TRUTH].cast(pl.Float32).to_numpy() if self.truth else None,
            )
            yield Block(samples, pieces(where))

    def _encode(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, RawRows, Encoded]:
        rows = self.features.rows(frame)
        return frame, rows, self.features.encode(rows)

    def _count(self, encoded: Encoded, frame: pl.DataFrame, rows: RawRows, here: slice) -> None:
        good, counted = ~self._table.bad[here], self._counted[here]
        self._coverage.look(rows if good.all() else frame.filter(good))
        if not counted.all():
            encoded = rows_of(encoded, np.flatnonzero(counted), self.features.schema)
        self._coverage.add(encoded)

    def inputs(self) -> list[dict[str, Any]]:
        """Return what a manifest says of each input, once all blocks were taken.

        Says on the terminal which sequences were cut, and in `cut` how many.
        """
        described = self._coverage.inputs()
        for (feature, _), entry in zip(self.features.inputs, described, strict=True):
            if isinstance(feature, List) and feature.max_length:
                longer = feature.too_long(self._table.raw.column(feature.name))
                if longer:
                    entry["cut"] = longer
                    terminal.err.print(
                        f"{feature.name}: {longer:,} of {self._table.raw.rows:,} sequences are "
                        f"longer than {feature.max_length}; the newest {feature.max_length} values "
                        "are kept",
                        soft_wrap=True,
                        highlight=False,
                    )
        return described


def fit_rows(
    source: Source,
    schema: Columns | None,
    config: PrepareConfig,
    folder: Path,
    bar: Progress,
    *,
    quiet: bool = False,
) -> Fitted:
    """Fit features to the training rows of a source, whose parts go to `spill` in a folder."""
    raw = _spilled(source, folder, bar)
    schema = schema or inferred_schema(raw, config)
    table = check_table(raw, schema, config, default=_protocol(source))
    schema = table.schema
    # Where the format says it all, nothing was taken for anything.
    if not quiet and not schema.whole_log:
        show(schema)
        terminal.say(table.notes)
    fitted: list[Feature] = []
    fitted_numbers: dict[tuple[int, str], NDArray[np.float32]] = {}
    task = bar.add_task("Fitting features", total=len(schema.used()) + len(schema.crosses))
    for feature, numbers in fit(table.fitting_rows(), schema, seed=config.seed):
        fitted_numbers |= {(len(fitted), name): values for name, values in numbers.items()}
        fitted.append(feature)
        bar.advance(task)
    features = Features(
        source=source.name,
        columns=schema,
        targets=table.targets,
        features=tuple(fitted),
        layout=getattr(source, "layout", None),
        reading=getattr(source, "reading", Reading()),
    )
    return Fitted(
        features,
        table,
        fitted_numbers=fitted_numbers,
        bad_rows=table.bad_rows,
        # Only a generated log knows it: in a table of one's own, it is a column like any other.
        truth=TRUTH in raw.types and has_fixed_format(source),
        notes=table.notes,
    )


def apply(
    known: Known, source: Source, config: PrepareConfig, folder: Path, bar: Progress
) -> Fitted:
    """Return the rows of a source, encoded by features of a run; see `fit_rows`."""
    raw, features = _spilled(source, folder, bar), known.features
    check_needed(features, raw.types, getattr(raw.parts[0], "origin", ""))
    check_columns(features.columns, raw)
    table = check_rows(
        raw,
        features.columns,
        features.targets,
        config,
        default=_protocol(source),
        varied=known.grows,
    )
    notes = table.notes
    if known.grows:
        features, grown = grow(features, table.fitting_rows())
        notes += tuple(
            f"{name}: {count:,} new values, {now:,} in all" for name, (count, now) in grown.items()
        )
        if fixed := [f.name for f in features.features if getattr(f, "counted", None)]:
            notes += (
                f"{', '.join(fixed)}: values, counts and target means stay as the first run "
                "fitted them; to renew them, train anew on the rows of all days",
            )
    return Fitted(features, table, fitted_numbers={}, bad_rows=table.bad_rows, notes=notes)


def raw_table(
    source: Source, folder: Path, advance: Callable[[int], None] = lambda _: None
) -> RawTable:
    """Return the rows of any source as parts in a folder.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        DatasetError: There are no rows.

    """
    if isinstance(source, Table):
        table = source.table(folder, advance)
    else:
        parts = tuple(spilled(_parts(source), folder, advance))
        if not parts:
            raise DatasetError("the log has no row")
        table = RawTable(parts)
    if not table.rows:
        origins = ", ".join(dict.fromkeys(str(part.origin) for part in table.parts))
        bad = table.faults
        why = f": all {len(bad)} were bad, the first is {bad[0].error}" if bad else ""
        what = "the log has no good row" if has_fixed_format(source) else "the table has no rows"
        raise DatasetError(f"{origins}: {what}{why}")
    return table


def _parts(source: Source) -> Iterator[Part]:
    """Yield the frames of a source that knows no more of its rows."""
    first = 1
    for frame in source.read():
        yield Part(frame, frame.height, source.name, first)
        first += frame.height


def _spilled(source: Source, folder: Path, bar: Progress) -> RawTable:
    (spill := folder / "spill").mkdir()
    task = bar.add_task("Reading rows", total=source.rows())
    raw = raw_table(source, spill, lambda rows: bar.advance(task, rows))
    bar.update(task, total=raw.rows, completed=raw.rows)
    return raw


def _protocol(source: Source) -> Protocol:
    """Return how rows are divided where nobody says it."""
    return "kaggle" if has_fixed_format(source) else "random"
