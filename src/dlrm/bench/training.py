"""The training step, beside the original's, round by round on the same batches and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dlrm.bench import roofline
from dlrm.bench.arch import Arch
from dlrm.bench.batches import Ids, rotation
from dlrm.bench.loading import Loading, measure_loading
from dlrm.bench.local_step import LocalStep
from dlrm.bench.original import Original, layout, load
from dlrm.bench.timer import Timing, figures, in_turn, interleave, ratio, verdict
from dlrm.nn.precision import ComputeDtype
from dlrm.terminal import progress

ROUND_SAMPLES = 65_536
"""Samples of a round: some tenths of a second, so that a round is more than a moment's luck."""
MOST_STEPS = 200
COMPARED_STEPS = 5
"""First steps whose losses are compared: both must do the same work."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The step at one batch size; timings are of a step."""

    batch_size: int
    steps: int
    """Steps a round."""
    ours: Timing
    original: Timing | None
    limit: roofline.Roofline
    id_check: Timing
    """Time of turning ids into rows and checking them, apart from the step."""
    loading: Loading | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with flat keys; None for what was not measured."""
        values: dict[str, Any] = {
            "batch_size": self.batch_size,
            "steps": self.steps,
            "rounds": len(self.ours.seconds),
            **figures(self.ours),
            "samples_per_s": self.batch_size / self.ours.median,
            "roofline_ms": self.limit.total_s * 1e3,
            "roofline_gemm_ms": self.limit.gemm_s * 1e3,
            "roofline_interaction_ms": self.limit.interaction_s * 1e3,
            "roofline_embedding_ms": self.limit.embedding_s * 1e3,
            "roofline_share": self.limit.total_s / self.ours.median,
            **figures(self.id_check),
            "id_check_share": ratio(self.id_check, self.ours)[0],
            "speedup": None,
            "speedup_interval": None,
            "verdict": None,
        }
        if self.original is not None:
            middle, low, high = ratio(self.original, self.ours)
            values |= figures(self.original)
            values |= {
                "original_samples_per_s": self.batch_size / self.original.median,
                "speedup": middle,
                "speedup_interval": [low, high],
                "verdict": verdict(self.ours, self.original),
            }
        if self.loading is not None:
            values |= self.loading.to_dict()
        return values


@dataclass(frozen=True, slots=True)
class TrainMeasured:
    """The step at every batch size."""

    rows: list[Measured]
    max_abs_diff: float | None
    """Largest difference of the losses of the first steps, from equal parameters; None alone."""


def measure(
    arch: Arch,
    batch_sizes: Sequence[int],
    *,
    precision: ComputeDtype,
    ids: Ids,
    optimizer: str,
    rounds: int,
    against: Path | None = None,
    loading: bool = False,
) -> TrainMeasured:
    """Time the training step: forward, loss, backward, update.

    Args:
        arch: Model and tables.
        batch_sizes: Sizes to measure one after the other, with the same model.
        precision: Of our MLPs' products; the original computes in float32.
        ids: How ids are distributed.
        optimizer: As for `dlrm.optim.find`; the original has no Adam.
        rounds: Rounds of each candidate.
        against: A clone of the original; None to measure ours alone.
        loading: Also time it with the batches read from a prepared dataset.

    Raises:
        ConfigError: The clone is none, or the original has no such optimizer.

    """
    # First of all, because it fails early.
    module = None if against is None else load(against)
    ours = LocalStep(arch, precision, optimizer)
    original = None if module is None else Original(module, arch, optimizer, ours.model)
    rows: list[Measured] = []
    difference = None
    with progress() as bar:
        for batch_size in batch_sizes:
            batches = rotation(arch.schema, batch_size, ids)
            task = bar.add_task(f"batch {batch_size}", total=rounds)
            steps = round_steps(batch_size)
            candidates = {
                "ours": in_turn(ours.step, batches, steps),
                "id_check": in_turn(ours.check_ids, batches, steps),
            }
            if original is not None:
                its = [layout(batch) for batch in batches]
                if difference is None:
                    difference = max(
                        abs(ours.step(mine) - original.step(other))
                        for mine, other in islice(zip(batches, its, strict=True), COMPARED_STEPS)
                    )
                candidates["original"] = in_turn(original.step, its, steps)
            timed = interleave(
                candidates, rounds=rounds, after_round=lambda task=task: bar.advance(task)
            )
            rows.append(
                Measured(
                    batch_size=batch_size,
                    steps=steps,
                    ours=timed["ours"].per(steps),
                    original=timed["original"].per(steps) if original is not None else None,
                    limit=roofline.measure(arch, ours.model, batches, precision, optimizer),
                    id_check=timed["id_check"].per(steps),
                    loading=measure_loading(arch, batch_size, ids, rounds, ours, original)
                    if loading
                    else None,
                )
            )
    return TrainMeasured(rows, difference)


def round_steps(batch_size: int) -> int:
    """Return how many steps a round has."""
    return max(2, min(MOST_STEPS, ROUND_SAMPLES // batch_size))
