"""`dlrm data generate clicks --out FILE`: write a generated click log, as raw text or a table."""

import errno
import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import polars as pl
from rich.console import Group, RenderableType
from tyro.conf import Positional

from dlrm import terminal
from dlrm.data.click_model import ClickModel
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.sources.criteo import write_lines
from dlrm.errors import ConfigError, DlrmError, InputError, UsageError
from dlrm.files import replacing
from dlrm.json_file import read_json
from dlrm.metrics import Metrics, MetricValues, measure

COMPRESSION = 1
"""Level of gzip. The text is mostly random digits: more effort gains little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateResult:
    """A written log, and the best scores that any model can expect on it, where they are known."""

    out: Path
    """The file."""
    rows: int
    size_bytes: int
    elapsed_s: float
    click_rate: float
    optimum: MetricValues | None = None
    """Metrics of the planted truth on the labels that were drawn from it; None of a profile."""
    label: str = ""
    """The column of the labels, of a profile."""

    @property
    def rows_per_s(self) -> float:
        """Speed, writing included."""
        return self.rows / self.elapsed_s

    def to_dict(self) -> dict[str, Any]:
        """Return this result as JSON-ready values."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "size_bytes": self.size_bytes,
            "elapsed_s": self.elapsed_s,
            "rows_per_s": self.rows_per_s,
            "click_rate": self.click_rate,
            "optimum": None if self.optimum is None else self.optimum.to_dict(),
        }

    @property
    def next_command(self) -> str:
        """A command that prepares the log, or trains on the table."""
        file = quote(str(self.out))
        if self.optimum is None:
            return f"dlrm train {file} --label {quote(self.label)}"
        return (
            f"dlrm data prepare criteo {file} --out prepared/{quote(self.out.name.split('.')[0])}"
        )

    def __rich__(self) -> RenderableType:
        written = (
            f"{self.rows:,} rows, {terminal.human_bytes(self.size_bytes)} in {self.out}, "
            f"{self.elapsed_s:.1f} s, {self.rows_per_s:,.0f} rows/s"
        )
        if self.optimum is None:
            return f"{written}; {self.click_rate:.1%} are clicks"
        best = self.optimum
        grid = terminal.table(None, "", "AUC", "log loss", "NE", "click rate")
        values = (best.auc, best.log_loss, best.normalized_entropy, best.click_rate)
        grid.add_row("optimum", *("-" if v is None else f"{v:.4f}" for v in values))
        return Group(written, grid)


def generate(
    source: Positional[Literal["clicks"] | None] = None,
    *,
    out: Path,
    profile: Path | None = None,
    rows: int = 1_000_000,
    seed: int = 0,
    world: int = 0,
    force: bool = False,
) -> GenerateResult:
    """Write a generated click log: clicks as raw Criteo text, or the rows of a profile as a table.

    Args:
        source: The generated log whose truth is known: clicks.
        out: The file to write. Of clicks, text as `dlrm data prepare criteo` reads it, compressed
            if it ends in .gz; of a profile .csv, or .parquet.
        profile: A file of dlrm data fit, whose rows are written instead.
        rows: How many rows. A shorter log is the beginning of a longer one.
        seed: Which rows: another seed gives new rows of the same world.
        world: Which planted truth.
        force: Replace a file that is there already.

    Raises:
        UsageError: Neither clicks nor a profile is named, or both.
        InputError: The profile is missing, damaged or of another version.

    """
    if (source is None) == (profile is None):
        raise UsageError("name what is generated: clicks, or --profile FILE")
    if out.exists() and not (force and out.is_file()):
        advice = "use another --out, or --force to replace it" if out.is_file() else "name a file"
        raise DlrmError(f"{out} is there already: {advice}")
    if profile is not None:
        return _of_profile(profile, out, rows, seed)
    log = ClicksSource(rows, seed, world)
    started = time.perf_counter()
    truth = Metrics()
    with _replacing(out) as stream, terminal.progress() as bar:
        task = bar.add_task("generate", total=rows)
        for frame in log.read():
            write_lines(
                frame, stream, label=log.label, dense=log.dense, categorical=log.categorical
            )
            p = frame["truth"].to_numpy().astype(np.float64)
            truth.update(np.log(p / (1.0 - p)), frame["label"].to_numpy())
            bar.advance(task, frame.height)
    elapsed_s = time.perf_counter() - started
    optimum = measure(*truth.label())
    return GenerateResult(
        out=out,
        rows=rows,
        size_bytes=out.stat().st_size,
        elapsed_s=elapsed_s,
        click_rate=optimum.click_rate or 0.0,
        optimum=optimum,
    )


def _of_profile(profile: Path, out: Path, rows: int, seed: int) -> GenerateResult:
    if rows < 1:
        raise ConfigError(f"rows is {rows}, expected at least 1")
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{out}: expected a name that ends in .csv or .parquet")
    values = read_json(profile, partial(_no_profile, profile), sealed=True)  # pyright: ignore[reportArgumentType]
    model = ClickModel.of(values, profile)
    started = time.perf_counter()
    frames = []
    with terminal.progress() as bar:
        task = bar.add_task("generate", total=rows)
        for frame in model.frames(rows, seed):
            frames.append(frame)
            bar.advance(task, frame.height)
    table = pl.concat(frames)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        table.write_parquet(temporary) if out.suffix == ".parquet" else table.write_csv(temporary)
    return GenerateResult(
        out=out,
        rows=rows,
        size_bytes=out.stat().st_size,
        elapsed_s=time.perf_counter() - started,
        label=model.label,
        click_rate=float(table[model.label].cast(pl.Float64).sum()) / rows,
    )


def _no_profile(profile: Path, problem: str) -> InputError:
    return InputError(problem.removeprefix(f"{profile}: "), file=profile)


@contextmanager
def _replacing(out: Path) -> Iterator[BinaryIO]:
    """Give a stream into what becomes `out` when the block ends without an error."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary, temporary.open("wb") as file:
            if out.suffix == ".gz":
                # No name and no time inside: equal rows make equal bytes.
                with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DlrmError(
                f"the disk of {out} is full; nothing was kept: free some space"
            ) from error
        raise DlrmError(f"{out} cannot be written: {error.strerror or error}") from error
