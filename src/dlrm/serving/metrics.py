"""What a model was asked and how long it took, under Triton's names.

A duration is that of requests, added up: of those that share a batch each counts it.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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

    def answered(self, elapsed_ns: int) -> None:
        """Count a request that was answered."""
        self.success += 1
        self.request_ns += elapsed_ns
        self.last_ms = time.time_ns() // 1_000_000

    def batch(self, rows: int, ns: dict[str, int]) -> None:
        """Count a batch of some rows, and what its requests spent in each part."""
        self.batches += 1
        self.rows += rows
        self.part_ns.update(ns)

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


def prometheus(models: Iterable[tuple[str, str, Statistics]]) -> str:
    """Return the metrics of models, given as name, version and counts, in Prometheus' text."""
    values: dict[str, list[str]] = {name: [] for name in _COUNTERS}
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
    lines = []
    for name, (kind, about) in _COUNTERS.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{value}" for value in values[name]]
    return "\n".join([*lines, ""])
