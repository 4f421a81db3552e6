"""`dlrm bench`: how fast this machine trains, beside others, and what the limit is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import timer
from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import Ids, batch_sizes
from dlrm.bench.training import TrainMeasured, measure
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
        return {
            "arch": self.arch,
            "rows_scale": self.rows_scale,
            "precision": self.precision,
            "ids": self.ids,
            "optim": self.optim,
        }

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
        columns = ["ours", "95% interval", "samples/s", "of the limit"]
        against = any(row["speedup"] is not None for row in batches)
        if against:
            columns += ["original", "95% interval", "speedup", "95% interval"]
        grid = terminal.table(title, "batch", *columns)
        for row in batches:
            cells = [
                _ms(row["ours_ms"]),
                _span(row["ours_interval"], " ms"),
                f"{row['samples_per_s']:,.0f}",
                f"{row['roofline_share']:.0%}",
            ]
            if against:
                cells += [
                    _ms(row["original_ms"]),
                    _span(row["original_interval"], " ms"),
                    f"{row['speedup']:.2f}x",
                    _span(row["speedup_interval"], "x"),
                ]
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
    if arch not in ARCHS:
        raise unknown("arch", arch, ARCHS)
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    resolved = precisions.resolve(precision)
    measured = measure(
        ARCHS[arch].scaled(rows_scale),
        batch_sizes(batch),
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
        machine=timer.machine() | {"threads": torch.get_num_threads()},
        measured=measured,
    )
    if out is not None:
        keep(result, out)
    return result


def keep(result: BenchTrainResult, out: Path | None = None) -> Path:
    """Append a row for each batch size to a file of results; None for the usual one."""
    paths = [timer.save("train", {**result.setting(), **row}, out) for row in result.batches]
    return paths[-1]


def _loading(row: dict[str, Any]) -> str | None:
    """Say how the step with loading compares; None where it was not measured."""
    if "ours_loading_ms" not in row:
        return None
    said = f"With loading, batch {row['batch_size']:,}: ours {_ms(row['ours_loading_ms'])}, "
    said += f"of it {row['loading_waited_share']:.1%} waiting"
    if "original_loading_ms" in row:
        said += f"; original {_ms(row['original_loading_ms'])}, {row['loading_speedup']:.2f}x "
        said += f"({_span(row['loading_speedup_interval'], 'x')})"
    return said


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _span(interval: Sequence[float], unit: str) -> str:
    return f"{interval[0]:.3g} to {interval[1]:.3g}{unit}"
