"""Rows of results as a page of benchmarks draws them, typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts
from dlrm.reporting.record import measure

Row = Mapping[str, Any]

TERMS = ("calls_ms", "compute_ms", "stream_ms", "latency_ms", "transfer_ms")
"""What the time of an operator is made of."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A part of a step; figures that are not known are not a number."""

    name: str
    forward_ms: float
    backward_ms: float
    ms: float
    share: float
    flops: float
    bytes: float
    lines: float
    gflops_per_s: float
    gb_per_s: float
    intensity: float
    roofline_share: float
    bound: str
    predicted_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the suites `train` and `infer`."""

    suite: str
    arch: str
    model: str
    batch_size: float
    precision: str
    storage: str
    optim: str
    ids: str
    step_ms: float
    step_low: float
    step_high: float
    samples_per_s: float
    roofline_share: float
    predicted_ms: float
    model_error: float
    verdict: str
    machine: str
    row: Row
    operators: tuple[Operator, ...]

    @property
    def setting(self) -> str:
        """What was measured but for the batch size, e.g. `train · criteo-kaggle · fp32`."""
        return " · ".join(self.words)

    @property
    def label(self) -> str:
        """What was measured."""
        size = "1 sample" if self.batch_size == 1 else f"{self.batch_size:,.0f} samples"
        return " · ".join((*self.words[:2], size, *self.words[2:]))

    @property
    def words(self) -> tuple[str, ...]:
        """What was measured, without what goes without saying."""
        scale = measure(self.row.get("rows_scale"), 1.0)
        pooling = measure(self.row.get("pooling"), 1.0)
        threads = measure(self.row.get("threads"), 1.0)
        return (
            self.suite,
            self.arch if self.model in ("dlrm", "") else f"{self.arch} ({self.model})",
            *((f"dim {self.row['dim']}",) if self.row.get("dim") is not None else ()),
            self.precision,
            *((f"rows in {self.storage}",) if self.storage != "fp32" else ()),
            *((self.optim,) if self.suite == "train" and self.optim != "sgd" else ()),
            *((f"{self.ids} ids",) if self.ids != "uniform" else ()),
            *((f"{pooling:g} ids a table",) if pooling != 1 else ()),
            *((f"{100 * scale:g}% of the rows",) if scale != 1 else ()),
            *((f"{threads:g} threads",) if threads != measure(self.row.get("cores")) else ()),
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the suite `ops`: an operator alone."""

    operator: str
    ms: float
    ms_low: float
    ms_high: float
    p95_ms: float
    warm_ms: float
    flops: float
    bytes: float
    gflops_per_s: float
    gb_per_s: float
    roofline_share: float
    bound: str
    error: str
    """Why it failed; nothing where it did not."""
    machine: str
    row: Row


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of the suite `numerics`: a way to use fewer bits."""

    data: str
    recipe: str
    variant: str
    kind: str
    auc_mean: float
    auc_change: float
    auc_change_low: float
    auc_change_high: float
    normalized_entropy_change: float
    log_loss_change: float
    calibration_change: float
    noise_auc: float
    verdict: str
    bytes_per_sample: float
    tables_bytes: float
    samples_per_s: float
    speedup: float
    error: str
    machine: str
    row: Row


@dataclass(frozen=True, slots=True)
class Host:
    """A row of the suite `machine`."""

    machine: str
    facts: Facts
    ceilings: Ceilings
