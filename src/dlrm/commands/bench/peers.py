"""`dlrm bench original` and `dlrm bench embedding`: ours beside those of other projects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.arch import ARCHS, Arch
from dlrm.bench.known import known
from dlrm.bench.rivals import tables, training
from dlrm.bench.watch import Seen, Watch
from dlrm.errors import ConfigError, unknown
from dlrm.nn import precision as precisions
from dlrm.nn.embedding import Storage
from dlrm.optim import find
from dlrm.planning.quantities import counts
from dlrm.planning.work import Ids


def bench_original(
    clone: Annotated[Path | None, tyro.conf.Positional] = None,
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    ids: Ids = "uniform",
    optim: str = "sgd",
    storage: Storage = "fp32",
    rounds: int = 11,
    rows_scale: float = 1.0,
    loading: bool = False,
    out: Path | None = None,
) -> "BenchOriginalResult":
    """Time the training step: forward, loss, backward and update, on batches held in memory.

    Beside it, round by round, the original's on the same batches and tables; and the limit that
    this machine's matrix products and memory set.

    Args:
        clone: Clone of github.com/facebookresearch/dlrm; without one ours is measured alone.
        arch: criteo-kaggle or criteo-terabyte.
        batch: Batch sizes, separated by commas.
        precision: Type of the MLPs' products; auto is bf16 where the CPU multiplies it natively.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer: sgd, adagrad, rowwise_adagrad or adam.
        storage: Storage of our tables: fp32, bf16 or split; those of others are fp32.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        loading: Also time training over a prepared dataset.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning, or the clone is none.

    """
    scaled, sizes = _checked(arch, rows_scale, batch, rounds, optim)
    setting = {
        "arch": arch, "rows_scale": rows_scale, "precision": precisions.resolve(precision),
        "ids": ids, "optim": optim, "storage": storage,
    }  # fmt: skip
    machine = known()
    with Watch() as watch:
        measured, difference = training.measure(
            scaled.stored(storage),
            sizes,
            machine,
            precision=precisions.resolve(precision),
            ids=ids,
            optimizer=optim,
            rounds=rounds,
            against=clone,
            loading=loading,
        )
    result = BenchOriginalResult(
        setting=setting, seen=watch.seen, batches=measured, max_abs_diff=difference
    )
    if out is not None:
        result.save(out)
    return result


def bench_embedding(
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    ids: Ids = "uniform",
    optim: str = "sgd",
    storage: Storage = "fp32",
    rounds: int = 11,
    rows_scale: float = 1.0,
    out: Path | None = None,
) -> "BenchEmbeddingResult":
    """Time the embedding tables alone: lookup, backward and update.

    Beside them, round by round, one nn.EmbeddingBag a table with torch's sparse optimizer, and
    FBGEMM where fbgemm-gpu-cpu can be imported.

    Args:
        arch: criteo-kaggle or criteo-terabyte; its tables are used.
        batch: Batch sizes, separated by commas.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer: sgd, adagrad, rowwise_adagrad or adam.
        storage: Storage of our tables: fp32, bf16 or split; those of others are fp32.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning.

    """
    scaled, sizes = _checked(arch, rows_scale, batch, rounds, optim)
    setting = {
        "arch": arch, "rows_scale": rows_scale, "ids": ids, "optim": optim, "storage": storage,
    }  # fmt: skip
    with Watch() as watch:
        measured, left_out = tables.measure(
            scaled.stored(storage), sizes, ids=ids, optimizer=optim, rounds=rounds
        )
    result = BenchEmbeddingResult(
        setting=setting, seen=watch.seen, batches=measured, left_out=left_out
    )
    if out is not None:
        result.save(out)
    return result


def _checked(
    arch: str, rows_scale: float, batch: str, rounds: int, optim: str
) -> tuple[Arch, list[int]]:
    """Return the sizes that a command line asks for, or say what has no meaning."""
    if arch not in ARCHS:
        raise unknown("arch", arch, ARCHS)
    find(optim)
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    return ARCHS[arch].scaled(rows_scale), counts("batch", batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """Settings and figures, for the results of `dlrm bench original` and `dlrm bench peers`."""

    suite: ClassVar[str]
    setting: dict[str, Any]
    """What was measured, JSON-ready."""
    seen: Seen
    """What else the machine did meanwhile."""
    batches: list[dict[str, Any]]
    """The figures of each batch size."""

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        seen = self.seen.to_dict()
        rows = [results.row(self.suite, {**self.setting, **row, **seen}) for row in self.batches]
        return results.save(rows, out)

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        machine = {**results.machine(), **self.seen.to_dict()}
        return {**self.setting, "batches": self.batches, **self._more(), **machine}

    def _more(self) -> dict[str, Any]:
        raise NotImplementedError

    def _doubts(self) -> list[str]:
        return [f"Doubtful: {self.seen.warning}"] if self.seen.warning else []


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOriginalResult(_Result):
    """Times of the training step."""

    suite: ClassVar[str] = "original"
    max_abs_diff: float | None
    """Largest difference of the losses of the first steps, from equal parameters; None alone."""

    def _more(self) -> dict[str, Any]:
        speedup = {str(row["batch_size"]): row["speedup"] for row in self.batches}
        return {"speedup": speedup, "max_abs_diff": self.max_abs_diff}

    def __rich__(self) -> RenderableType:
        batches = self.batches
        title = "Training step, {arch}, {precision}, {ids} ids, {optim}, tables {storage}"
        against = any(row["speedup"] is not None for row in batches)
        columns = ["ours, ms", "original, ms", "speedup"] if against else ["ours, ms"]
        grid = terminal.table(
            title.format(**self.setting), "batch", *columns, "samples/s", "of the limit"
        )
        for row in batches:
            cells = [_middle(row, "ours")]
            if against:
                cells += [_middle(row, "original"), _middle(row, "speedup", "")]
            cells += [f"{row['samples_per_s']:,.0f}", f"{row['roofline_share']:.0%}"]
            grid.add_row(f"{row['batch_size']:,}", *cells)
        parts: list[RenderableType] = [grid]
        parts += [line for row in batches if (line := _loading(row))]
        checks = ", ".join(f"{row['id_check_share']:.1%}" for row in batches)
        parts.append(f"Turning ids into rows and checking them: {checks} of the step")
        if (difference := self.max_abs_diff) is not None:
            parts.append(f"First losses of both, from equal parameters, differ by {difference:.1e}")
        return Group(*parts, _conclusion(batches, against), *self._doubts())


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchEmbeddingResult(_Result):
    """Times of the embedding tables."""

    suite: ClassVar[str] = "embedding"
    left_out: dict[str, str]
    """Peer -> why it was not measured."""

    def _more(self) -> dict[str, Any]:
        return {"left_out": self.left_out}

    def __rich__(self) -> RenderableType:
        title = "Embedding tables, {arch}, {ids} ids, {optim}, tables {storage}"
        names = [name for name in tables.PEERS if name not in self.left_out]
        columns = [column for name in names for column in (f"{name}, ms", "speedup")]
        grid = terminal.table(title.format(**self.setting), "batch", "ours, ms", *columns)
        for row in self.batches:
            cells = [_middle(row, "ours")]
            for name in names:
                cells += [_middle(row, name), _middle(row, f"{name}_speedup", "")]
            grid.add_row(f"{row['batch_size']:,}", *cells)
        reasons = (f"Without {name}: {why}" for name, why in self.left_out.items())
        return Group(grid, *reasons, *self._doubts())


def _conclusion(batches: Sequence[dict[str, Any]], against: bool) -> str:
    if not against:
        shares = ", ".join(f"{row['roofline_share']:.0%}" for row in batches)
        other = "dlrm bench original CLONE measures the original beside."
        return f"{shares} of the machine's limit; {other}"
    if any(row["verdict"].startswith("no verdict") for row in batches):
        return "No verdict: the interval of a speedup contains 1; nothing else may run meanwhile."
    speedups = ", ".join(f"{row['speedup']:.1f}x at {row['batch_size']:,}" for row in batches)
    return f"The original's speed, times: {speedups}."


def _loading(row: dict[str, Any]) -> str | None:
    """Say how the step with loading compares; None where it was not measured."""
    if "ours_loading_ms" not in row:
        return None
    text = f"With loading, batch {row['batch_size']:,}: ours {_ms(row['ours_loading_ms'])}, "
    text += f"of it {row['loading_waited_share']:.1%} waiting"
    if "original_loading_ms" in row:
        text += f"; original {_ms(row['original_loading_ms'])}, {row['loading_speedup']:.2f}x "
        text += "({:.3g} to {:.3g})".format(*row["loading_speedup_interval"])
    return text


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _middle(row: dict[str, Any], name: str, unit: str = "_ms") -> str:
    """Return a median, and below it its 95% interval."""
    low, high = row[f"{name}_interval"]
    return f"{row[f'{name}{unit}']:.3g}\n{low:.3g}–{high:.3g}"
