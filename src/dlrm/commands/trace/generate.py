"""`dlrm trace generate WORKLOAD --out FILE`: traces from a model of traffic."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from dlrm import terminal
from dlrm.traces import formats, workload


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateTraceResult:
    """A file of generated traces."""

    out: Path
    features: int
    accesses: int
    """Accesses of all features together."""
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "out": str(self.out),
            "features": self.features,
            "accesses": self.accesses,
            "elapsed_s": self.elapsed_s,
            "accesses_per_s": self.accesses / self.elapsed_s,
        }

    def __rich__(self) -> str:
        speed = self.accesses / self.elapsed_s
        return (
            f"{self.accesses:,} accesses of {self.features} features in {self.out}, "
            f"{speed:,.0f} accesses/s"
        )


def trace_generate(
    source: Positional[str], *, out: Path, accesses: int = 1_000_000, seed: int = 0
) -> GenerateTraceResult:
    """Generate traces from a workload: of dlrm trace fit, FBGEMM's, the original's, or a preset.

    Args:
        source: The workload; presets are production-2021 and production-2022.
        out: A file: .npz; .npy where each sample has one id; anything else is text, of one feature.
        accesses: Accesses of each feature.
        seed: Seed of the random numbers.

    Raises:
        InputError: The workload is missing, damaged or of another version.
        ConfigError: There is no such preset; lists them.

    """
    loaded = workload.load(source)
    started = time.perf_counter()
    with terminal.progress() as bar:
        task = bar.add_task("Generating", total=len(loaded.features))
        traces = []
        for number, (name, model) in enumerate(loaded.features.items()):
            traces.append(model.generate(accesses, seed * 1_000_003 + number, name))
            bar.advance(task)
    elapsed_s = time.perf_counter() - started
    formats.write(out, traces)
    return GenerateTraceResult(
        out=out, features=len(traces), accesses=sum(map(len, traces)), elapsed_s=elapsed_s
    )
