"""`dlrm bench`: how fast this machine trains, beside others, and what the limit is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import embedding as embedding_bench
from dlrm.bench import timer
from dlrm.bench import training as training_bench
from dlrm.bench.arch import ARCHS, Arch
from dlrm.bench.batches import Ids, batch_sizes
from dlrm.bench.embedding import EmbeddingMeasured
from dlrm.bench.training import TrainMeasured
from dlrm.errors import ConfigError, unknown
from dlrm.nn import precision as precisions

Optimizer = Literal["sgd", "adagrad", "rowwise_adagrad"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTrainResult:
    """Times of the training step."""

    arch: str
    rows_scale: float
    precision: str
    ids: str
    optim: str
    machine: dict[str, Any]
    measured: TrainMeasured

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The figures of each batch size."""
        return [row.to_dict() for row in self.measured.rows]

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        names = ("arch", "rows_scale", "precision", "ids", "optim")
        return {name: getattr(self, name) for name in names}

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        return [timer.save("train", {**self.setting(), **row}, out) for row in self.batches][-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        batches = self.batches
        return {
            **self.setting(),
            "batches": batches,
            "speedup": {str(row["batch_size"]): row["speedup"] for row in batches},
            "max_abs_diff": self.measured.max_abs_diff,
            **self.machine,
        }

    def __rich__(self) -> RenderableType:
        batches = self.batches
        title = f"Training step, {self.arch}, {self.precision}, {self.ids} ids, {self.optim}"
        against = any(row["speedup"] is not None for row in batches)
        columns = ["ours, ms", "original, ms", "speedup"] if against else ["ours, ms"]
        grid = terminal.table(title, "batch", *columns, "samples/s", "of the limit")
        for row in batches:
            cells = [_middle(row["ours_ms"], row["ours_interval"])]
            if against:
                cells += [
                    _middle(row["original_ms"], row["original_interval"]),
                    _middle(row["speedup"], row["speedup_interval"]),
                ]
            cells += [f"{row['samples_per_s']:,.0f}", f"{row['roofline_share']:.0%}"]
            grid.add_row(f"{row['batch_size']:,}", *cells)
        parts: list[RenderableType] = [grid]
        parts += [line for row in batches if (line := _loading(row))]
        if (difference := self.measured.max_abs_diff) is not None:
            parts.append(f"First losses of both, from equal parameters, differ by {difference:.1e}")
        parts.append(self._sentence(batches, against))
        return Group(*parts)

    def _sentence(self, batches: Sequence[dict[str, Any]], against: bool) -> str:
        if not against:
            shares = ", ".join(f"{r['roofline_share']:.0%}" for r in batches)
            return f"{shares} of the machine's limit; --against CLONE measures the original beside."
        if any(row["verdict"].startswith("no verdict") for row in batches):
            return (
                "No verdict: the interval of a speedup contains 1; nothing else may run meanwhile."
            )
        speedups = ", ".join(f"{r['speedup']:.1f}x at {r['batch_size']:,}" for r in batches)
        return f"The original's speed, times: {speedups}."


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchEmbeddingResult:
    """Times of the embedding tables."""

    arch: str
    rows_scale: float
    ids: str
    optim: str
    machine: dict[str, Any]
    measured: list[EmbeddingMeasured]
    left_out: dict[str, str]
    """Peer -> why it was not measured."""

    def setting(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        names = ("arch", "rows_scale", "ids", "optim")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            **self.setting(),
            "batches": [row.to_dict() for row in self.measured],
            "left_out": self.left_out,
            **self.machine,
        }

    def save(self, out: Path | None = None) -> Path:
        """Append a row for each batch size to a file of results; None for the usual one."""
        rows = ({**self.setting(), **row.to_dict()} for row in self.measured)
        return [timer.save("embedding", row, out) for row in rows][-1]

    def __rich__(self) -> RenderableType:
        title = f"Embedding tables, {self.arch}, {self.ids} ids, {self.optim}"
        names = list(self.measured[0].peers)
        columns = [column for name in names for column in (f"{name}, ms", "speedup")]
        grid = terminal.table(title, "batch", "ours, ms", *columns)
        for measured in self.measured:
            row = measured.to_dict()
            cells = [_middle(row["ours_ms"], row["ours_interval"])]
            for name in names:
                cells += [
                    _middle(row[f"{name}_ms"], row[f"{name}_interval"]),
                    _middle(row[f"{name}_speedup"], row[f"{name}_speedup_interval"]),
                ]
            grid.add_row(f"{measured.batch_size:,}", *cells)
        reasons = (f"Without {name}: {why}" for name, why in self.left_out.items())
        return Group(grid, *reasons)


def train(
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    against: Path | None = None,
    ids: Ids = "uniform",
    optim: Optimizer = "sgd",
    rounds: int = 11,
    rows_scale: float = 1.0,
    loading: bool = False,
    out: Path | None = None,
) -> BenchTrainResult:
    """Time the training step: forward, loss, backward and update, on batches held in memory.

    Beside it, round by round, the original's on the same batches and tables; and the limit that
    this machine's matrix products and memory set.

    Args:
        arch: criteo-kaggle or criteo-terabyte.
        batch: Batch sizes, separated by commas.
        precision: Of the MLPs' products; auto is bf16 where the CPU multiplies it natively.
        against: A clone of github.com/facebookresearch/dlrm to measure beside.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        loading: Also time training over a prepared dataset.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning, or the clone is none.

    """
    scaled, sizes = _checked(arch, rows_scale, batch, rounds)
    resolved = precisions.resolve(precision)
    measured = training_bench.measure(
        scaled,
        sizes,
        precision=resolved,
        ids=ids,
        optimizer=optim,
        rounds=rounds,
        against=against,
        loading=loading,
    )
    result = BenchTrainResult(
        arch=arch,
        rows_scale=rows_scale,
        precision=resolved,
        ids=ids,
        optim=optim,
        machine=timer.machine(),
        measured=measured,
    )
    if out is not None:
        result.save(out)
    return result


def embedding(
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    ids: Ids = "uniform",
    optim: Optimizer = "sgd",
    rounds: int = 11,
    rows_scale: float = 1.0,
    out: Path | None = None,
) -> BenchEmbeddingResult:
    """Time the embedding tables alone: lookup, backward and update.

    Beside them, round by round, one nn.EmbeddingBag a table with torch's sparse optimizer, and
    FBGEMM where fbgemm-gpu-cpu can be imported.

    Args:
        arch: criteo-kaggle or criteo-terabyte; its tables are used.
        batch: Batch sizes, separated by commas.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning.

    """
    scaled, sizes = _checked(arch, rows_scale, batch, rounds)
    measured, left_out = embedding_bench.measure(
        scaled, sizes, ids=ids, optimizer=optim, rounds=rounds
    )
    result = BenchEmbeddingResult(
        arch=arch,
        rows_scale=rows_scale,
        ids=ids,
        optim=optim,
        machine=timer.machine(),
        measured=measured,
        left_out=left_out,
    )
    if out is not None:
        result.save(out)
    return result


def _checked(arch: str, rows_scale: float, batch: str, rounds: int) -> tuple[Arch, list[int]]:
    """Return the sizes that a command line asks for, or say what has no meaning."""
    if arch not in ARCHS:
        raise unknown("arch", arch, ARCHS)
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    return ARCHS[arch].scaled(rows_scale), batch_sizes(batch)


def _loading(row: dict[str, Any]) -> str | None:
    """Say how the step with loading compares; None where it was not measured."""
    if "ours_loading_ms" not in row:
        return None
    said = f"With loading, batch {row['batch_size']:,}: ours {_ms(row['ours_loading_ms'])}, "
    said += f"of it {row['loading_waited_share']:.1%} waiting"
    if "original_loading_ms" in row:
        said += f"; original {_ms(row['original_loading_ms'])}, {row['loading_speedup']:.2f}x "
        said += "({:.3g} to {:.3g})".format(*row["loading_speedup_interval"])
    return said


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _middle(value: float, interval: Sequence[float]) -> str:
    """Return a median, and below it its 95% interval."""
    return f"{value:.3g}\n{interval[0]:.3g}–{interval[1]:.3g}"
