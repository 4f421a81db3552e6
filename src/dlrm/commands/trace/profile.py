"""`dlrm trace profile SOURCE`: what the accesses of each feature are like."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from tyro.conf import Positional

from dlrm import terminal
from dlrm.data.streams import open_traces
from dlrm.files import write_json
from dlrm.traces.measures import Measures, correlation
from dlrm.traces.native import Sampler

SHOWN = 0.01
"""Share of the ids whose cache is shown in the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileResult:
    """Measures by feature."""

    source: str
    features: Mapping[str, Mapping[str, Any]]
    """Feature -> its measures, see `dlrm.traces.measures`."""
    correlation: Mapping[str, float]
    """Two features, joined by ` x ` -> how much one says about the other, from 0 to 1."""
    out: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "source": self.source,
            "features": dict(self.features),
            "correlation": dict(self.correlation),
            "out": None if self.out is None else str(self.out),
        }

    def __rich__(self) -> RenderableType:
        grid = terminal.table(
            None, "", "accesses", "ids", "a sample", "unique", "top 16", "hits of 1%", "drift",
        )  # fmt: skip
        for name, values in self.features.items():
            unique = values["unique_ids"].get("2048")
            top = (
                values["share_of_most_popular"][: 1 + values["ranks"].index(16)][-1:]
                if (16 in values["ranks"])
                else [1.0]
            )
            rows = max(1, round(SHOWN * values["distinct_ids"]))
            at = max(i for i, size in enumerate(values["cache_rows"]) if size <= rows)
            grid.add_row(
                name,
                f"{values['accesses']:,}",
                f"{values['distinct_ids']:,}",
                f"{values['accesses'] / max(values['samples'], 1):.1f}",
                "-" if unique is None else f"{unique:,.0f}",
                f"{top[0]:.1%}",
                f"{1 - values['miss_ratios'][at]:.1%}",
                f"{1 - values['drift'][-1]:.0%}",
            )
        lines: list[RenderableType] = [
            grid,
            "unique: ids of 2,048 samples; top 16: share of the most popular ids; hits of 1%: of a "
            "cache with 1% of the rows; drift: accesses that the first and the last 16th of the "
            "trace do not have in common",
        ]
        strongest = sorted(self.correlation.items(), key=lambda pair: -pair[1])[:3]
        if strongest and strongest[0][1] > 0.05:
            pairs = ", ".join(f"{pair} {value:.2f}" for pair, value in strongest)
            lines.append(f"Features that say most about each other: {pairs}")
        if self.out is not None:
            lines.append(f"Measures in {self.out}")
        return Group(*lines)


def trace_profile(
    source: Positional[str],
    *,
    features: tuple[str, ...] = (),
    split: str = "train",
    sample: int = 0,
    out: Path | None = None,
) -> ProfileResult:
    """Measure how the rows of embedding tables are accessed: locality, popularity, drift.

    Miss ratios are those of an LRU cache of any number of rows, exact.

    Args:
        source: A prepared dataset, raw data as `--data` takes them, or a file of ids: .npy, .npz,
            text with a line for each sample, or .pt of facebookresearch/dlrm_datasets.
        features: Features to measure, all with ids if not given.
        split: Which rows of a dataset.
        sample: Estimate miss ratios from so many ids, in memory that does not grow with the trace;
            0 measures all.
        out: A JSON file for the measures.

    Raises:
        InputError: The source is missing, damaged, or says something it must not.
        ConfigError: There is no such feature or split; lists the choices.

    """
    traces = open_traces(source, features, split=split)
    measured: dict[str, dict[str, Any]] = {}
    with terminal.progress() as bar:
        task = bar.add_task("Measuring", total=len(traces))
        for trace in traces:
            sampler = Sampler(sample) if sample else None
            if sampler is not None:
                sampler.feed(trace.ids)
            measured[trace.name] = Measures(trace).to_dict(sampler)
            bar.advance(task)
    pairs = {
        f"{a.name} x {b.name}": round(correlation(a, b), 4)
        for a, b in combinations(traces, 2)
        if a.samples == b.samples and len(traces) <= 40
    }
    result = ProfileResult(source=source, features=measured, correlation=pairs, out=out)
    if out is not None:
        write_json(out, result.to_dict())
    return result
