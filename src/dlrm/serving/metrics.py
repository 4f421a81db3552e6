"""What a model was asked and how long it took, under Triton's names.

A duration is that of requests, added up: of those that share a batch each counts it.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlrm.serving.comparison import quantiles_ms

_COUNTERS = {
    "nv_inference_request_success": ("counter", "Requests that were answered"),
    "nv_inference_request_failure": ("counter", "Requests that were not, by reason"),
    "nv_inference_count": ("counter", "Rows that were scored"),
    "nv_inference_exec_count": ("counter", "Batches that were scored"),
    "nv_inference_request_duration_us": ("counter", "Time of requests from acceptance to answer"),
    "nv_inference_queue_duration_us": ("counter", "Time of requests in the queue"),
    "nv_inference_compute_input_duration_us": (
        "counter",
        "Time of requests in which rows become ids",
    ),
    "nv_inference_compute_infer_duration_us": ("counter", "Time of requests in the model"),
    "nv_inference_compute_output_duration_us": (
        "counter",
        "Time of requests in which answers are made",
    ),
    "nv_inference_pending_request_count": ("gauge", "Requests in the queue or at work"),
}
"""Name of a metric -> its type, and what it counts."""
_SHADOWS = {
    "requests": ("counter", "Requests that a model and its shadow answered"),
    "dropped": ("counter", "Requests that a shadow did not get"),
    "failed": ("counter", "Requests that a shadow did not answer"),
    "mean_abs_diff": ("gauge", "Mean absolute difference of the scores of a model and its shadow"),
    "max_abs_diff": ("gauge", "Largest absolute difference of these"),
    "correlation": ("gauge", "Correlation of these"),
    "rank_agreement": ("gauge", "Part of successive rows that both rank alike"),
    "mean_score": ("gauge", "Mean score of the model"),
    "shadow_mean_score": ("gauge", "Mean score of its shadow"),
}
"""Key of a shadow's comparison -> the type of its metric, and what it is."""
_RECENT, _RECENT_S = 4096, 10
"""Requests whose times are kept, and for how many seconds they count as recent."""
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class Statistics:
    """Counts of one version of a model; one thread writes a field, any may read it."""

    success: int = 0
    rows: int = 0
    batches: int = 0
    pending: int = 0
    last_ms: int = 0
    """When the last request was answered, in milliseconds since 1970."""
    request_ns: int = 0
    part_ns: Counter[str] = field(default_factory=Counter)
    """Nanoseconds of requests in each of `_PARTS`."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that were refused, by reason: the name of an HTTP status."""
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    """When each of the last requests was answered, and what it took, in nanoseconds."""

    def answered(self, elapsed_ns: int) -> None:
        """Count a request that was answered."""
        now_ns = time.time_ns()
        self.success += 1
        self.request_ns += elapsed_ns
        self.last_ms = now_ns // 1_000_000
        self._recent.append((now_ns, elapsed_ns))

    def batch(self, rows: int, ns: dict[str, int]) -> None:
        """Count a batch of some rows, and what its requests spent in each part."""
        self.batches += 1
        self.rows += rows
        self.part_ns.update(ns)

    def summary(self) -> dict[str, Any]:
        """Return the counts for people, with the time that requests of the last seconds took."""
        since_ns = time.time_ns() - _RECENT_S * 1_000_000_000
        recent = [elapsed_ns for at_ns, elapsed_ns in list(self._recent) if at_ns >= since_ns]
        return {
            "requests": self.success,
            "rows": self.rows,
            "batches": self.batches,
            "pending": self.pending,
            "failures": dict(self.failures),
            "latency_ms": quantiles_ms(recent),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as Triton's statistics extension has them."""

        def duration(count: int, ns: int) -> dict[str, int]:
            return {"count": count, "ns": ns}

        return {
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "execution_count": self.batches,
            "inference_stats": {
                "success": duration(self.success, self.request_ns),
                "fail": duration(self.failures.total(), 0),
                **{part: duration(self.success, self.part_ns[part]) for part in _PARTS},
                "cache_hit": duration(0, 0),
                "cache_miss": duration(0, 0),
            },
            "batch_stats": [],
        }


def prometheus(
    models: Iterable[tuple[str, str, Statistics]], shadows: Iterable[Mapping[str, Any]] = ()
) -> str:
    """Return metrics in Prometheus' text.

    Args:
        models: Name, version and counts of each.
        shadows: As of `Shadow.to_dict`.

    """
    metrics = _COUNTERS | {f"dlrm_shadow_{key}": kind for key, kind in _SHADOWS.items()}
    values: dict[str, list[str]] = {name: [] for name in metrics}
    for name, version, counts in models:
        label = f'model="{name}",version="{version}"'
        for metric, value in (
            ("request_success", counts.success),
            ("count", counts.rows),
            ("exec_count", counts.batches),
            ("request_duration_us", counts.request_ns // 1000),
            *((f"{part}_duration_us", counts.part_ns[part] // 1000) for part in _PARTS),
            ("pending_request_count", counts.pending),
        ):
            values[f"nv_inference_{metric}"].append(f"{{{label}}} {value}")
        for reason, count in sorted(counts.failures.items()):
            values["nv_inference_request_failure"].append(f'{{{label},reason="{reason}"}} {count}')
    for pair in shadows:
        names = ("model", "version", "shadow", "shadow_version")
        label = ",".join(f'{name}="{pair[name] or ""}"' for name in names)
        for key in _SHADOWS:
            if pair[key] is not None:
                values[f"dlrm_shadow_{key}"].append(f"{{{label}}} {pair[key]}")
    lines = []
    for name, (kind, about) in metrics.items():
        if values[name] or name in _COUNTERS:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{value}" for value in values[name]]
    return "\n".join([*lines, ""])
