"""`dlrm data prepare`: raw data in, a prepared dataset out."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Annotated, Any, Literal

import tyro
from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.data import sources
from dlrm.data.features.column import names_of
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare as prepare_dataset
from dlrm.data.resolve import named_files, table_of
from dlrm.data.sources.reading import Header
from dlrm.data.sources.source import Source, has_fixed_format
from dlrm.data.sources.table_files import in_folder
from dlrm.data.split import Protocol
from dlrm.data.store import Dataset
from dlrm.data.store import verify as verify_dataset
from dlrm.data.vocabulary import IdOrder
from dlrm.errors import ConfigError
from dlrm.schema import Task

_DEFAULTS = PrepareConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareResult:
    """A prepared dataset, and how fast it was prepared."""

    out: Path
    reused: bool
    """Whether the finished dataset was there already."""
    verified: bool
    """Whether every byte was compared with its hash."""
    rows: int
    splits: dict[str, int]
    """Rows of each split."""
    labels: dict[str, dict[str, float | None]]
    """Label -> its `positive_rate`, or `mean` of real numbers, over all splits."""
    values: int
    """Ids of all tables together, without their rows for other values."""
    size_bytes: int
    bad_rows: dict[str, Any]
    """How many rows were left out, why, and where the first ones stand."""
    duration_s: float
    rows_per_s: float | None
    """None when nothing had to be done."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "out": str(self.out),
            "reused": self.reused,
            "verified": self.verified,
            "rows": self.rows,
            **{f"{name}_rows": rows for name, rows in self.splits.items()},
            **next(iter(self.labels.values())),
            **({"labels": self.labels} if len(self.labels) > 1 else {}),
            "values": self.values,
            "size_bytes": self.size_bytes,
            "bad_rows": self.bad_rows["total"],
            "bad_row_reasons": self.bad_rows["reasons"],
            "bad_row_examples": self.bad_rows["first"],
            "duration_s": self.duration_s,
            "rows_per_s": self.rows_per_s,
        }

    @property
    def next_command(self) -> str:
        """A command that shows the dataset."""
        return f"dlrm data describe {quote(str(self.out))}"

    def __rich__(self) -> RenderableType:
        grid = terminal.table(None, "split", "rows")
        for name, rows in self.splits.items():
            grid.add_row(name, f"{rows:,}")
        done = "found finished" if self.reused else f"prepared in {self.duration_s:.1f} s"
        speed = f", {self.rows_per_s:,.0f} rows/s" if self.rows_per_s else ""
        size = terminal.human_bytes(self.size_bytes)
        several = len(self.labels) > 1
        means = ", ".join(
            f"{key.replace('_', ' ')}{f' of {name}' if several else ''} {value:.4f}"
            for name, known in self.labels.items()
            for key, value in known.items()
            if value is not None
        )
        lines = [f"{self.out}: {done}{speed}; {size}, {self.values:,} values, {means}"]
        lines[0] += ", every hash is right" if self.verified else ""
        if self.bad_rows["total"]:
            why = ", ".join(f"{kind} {rows:,}" for kind, rows in self.bad_rows["reasons"].items())
            lines.append(f"{self.bad_rows['total']:,} bad rows left out ({why}):")
            lines += [f"  {example}" for example in self.bad_rows["first"]]
        return Group(grid, Text("\n".join(lines)))


def prepare(
    source: Annotated[str, tyro.conf.Positional],
    raw: Annotated[list[Path], tyro.conf.Positional],
    *,
    out: Path,
    split: Protocol | Literal["auto"] = _DEFAULTS.split,
    fractions: tuple[float, float, float] | None = None,
    seed: int = _DEFAULTS.seed,
    ids: IdOrder = _DEFAULTS.ids,
    min_count: int = _DEFAULTS.min_count,
    max_rows_per_table: int | None = _DEFAULTS.max_rows_per_table,
    bad_rows: Literal["error", "skip"] = _DEFAULTS.bad_rows,
    label: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    positive: str | None = None,
    task: Task | None = None,
    weight: str | None = None,
    time: str | None = None,
    group: str | None = None,
    category: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    missing: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    only_empty_missing: bool = False,
    schema: str | None = None,
    separator: str | None = None,
    header: Header = "auto",
    skip_lines: int | None = None,
    comment: str | None = None,
    features: FeaturesConfig = _DEFAULTS.features,
    verify: bool = False,
    force: bool = False,
) -> PrepareResult:
    """Turn a raw log or a table into a prepared dataset.

    Args:
        source: criteo is raw Criteo text (label, 13 integers, 26 hexadecimal categories); table is
            any file of CSV, TSV, JSON lines, Parquet or libsvm; or module:name, a source of your
            own.
        raw: The files in order, plain, .gz, .bz2, .zip or .zst; patterns of them; of a table also a
            folder with files named train, valid and test.
        out: Folder of the dataset; a finished one from the same log and settings is used again.
        split: kaggle (seven equal days, the last one held out), days (a file a day, the last one
            held out), chronological or random; auto is kaggle for criteo, random for a table.
        fractions: Train, validation and test, as fractions or as row counts; .8 .1 .1 by default.
        seed: Seed of the random split.
        ids: Ids by first appearance, or by frequency.
        min_count: Values seen fewer times share one row.
        max_rows_per_table: Take values modulo this number, so that no table has more values.
        bad_rows: Stop at a row that is not what it should be, or count it and go on.
        label: Table: the column to predict; given several times, several columns.
        positive: Table: the value of the label that counts as positive, or a comparison such as
            ">= 4".
        task: Table: classification, or regression where labels are any numbers.
        weight: Table: the column that says how much each row counts.
        time: Table: the column of times to divide the rows by: the oldest train, the newest test.
        group: Table: a column, such as the user, of which each value is in one split only.
        category: Table: a column that is a category whatever its values look like; may be given
            several times.
        missing: Table: a text that is missing in every column; may be given several times.
        only_empty_missing: Table: n/a, NULL, - and the like are not missing in numbers, times and
            labels.
        schema: Table: a file that says what each column is, as `dlrm data infer` writes it.
        separator: Table: what is between fields, such as ";", "::", tab or spaces.
        header: Table: whether a line names the columns; without one they are c0, c1, ...
        skip_lines: Table: lines above the header.
        comment: Table: what lines that are no rows begin with.
        features: What becomes of the columns; fitted on the training rows, of a log too.
        verify: Read everything again and compare it with its hashes.
        force: Replace a dataset that was prepared otherwise.

    Raises:
        InputError: The log has a bad row; names file, line and column.
        DatasetError: The disk is too small, or `out` holds something else.

    """
    given: dict[str, Any] = dict(locals())
    settings: dict[str, Any] = {name: given[name] for name in names_of(PrepareConfig)}
    settings["fractions"] = _DEFAULTS.fractions if fractions is None else fractions
    config = PrepareConfig(**settings)
    rows = _source(source, raw, config)
    protocol = ("kaggle" if has_fixed_format(rows) else "random") if split == "auto" else split
    if fractions is not None and protocol in ("kaggle", "days"):
        raise ConfigError(f"split {protocol} has its own fractions; use chronological or random")
    began = perf_counter()
    prepared = prepare_dataset(rows, out, config, force=force)
    duration_s = perf_counter() - began
    if verify:
        verify_dataset(prepared.dataset)
    manifest = prepared.dataset.manifest
    splits = manifest["splits"]
    arrays = [record for split in splits.values() for record in split["arrays"].values()]
    return PrepareResult(
        out=prepared.dataset.path,
        reused=prepared.reused,
        verified=verify,
        rows=manifest["rows"],
        splits={name: split["rows"] for name, split in splits.items()},
        labels={name: _mean(prepared.dataset, name) for name in prepared.dataset.schema.labels},
        values=sum(table.num_embeddings - 1 for table in prepared.dataset.schema.tables),
        size_bytes=sum(record["bytes"] for record in (*arrays, *manifest["files"].values())),
        bad_rows=manifest["bad_rows"],
        duration_s=duration_s,
        rows_per_s=None if prepared.reused else manifest["rows"] / duration_s,
    )


def _source(kind: str, raw: list[Path], config: PrepareConfig) -> Source:
    """Return the source of raw files, of a kind of the catalogue or of one's own."""
    files = named_files(raw)
    if kind == "table":
        folder = files[0] if len(files) == 1 and files[0].is_dir() else None
        return table_of(in_folder(folder) if folder else files, config)
    return sources.find(kind)(files, bad_rows=config.bad_rows)


def _mean(dataset: Dataset, label: str) -> dict[str, float | None]:
    """Return the positive rate of a label over all splits, or its mean."""
    splits = [split for split in dataset.manifest["splits"].values() if split["rows"]]
    rows = sum(split["rows"] for split in splits)
    if dataset.schema.task == "classification":
        positives = sum(split["positives"][label] for split in splits)
        return {"positive_rate": positives / rows if rows else None}
    total = sum(split["mean"][label] * split["rows"] for split in splits)
    return {"mean": total / rows if rows else None}
