"""The training step, beside the original's, round by round on the same batches and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dlrm.bench.arch import Arch
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LocalStep
from dlrm.bench.rivals.loading import Loading, measure_loading
from dlrm.bench.rivals.original import Original, layout, load
from dlrm.bench.timer import Timing, beside, figures, in_turn, interleave, ratio, round_steps
from dlrm.nn.precision import ComputeDtype
from dlrm.planning.machine import Machine
from dlrm.planning.predict import Predictor
from dlrm.planning.work import Ids, Shape
from dlrm.terminal import progress

COMPARED_STEPS = 5
"""First steps whose losses are compared: both must do the same work."""
LIMITS = {
    "gemm": ("mlp",), "interaction": ("dot",), "embedding": ("lookup", "update"),
}  # fmt: skip
"""Part of the limit -> beginnings of the kinds of operators that it is of."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The step at one batch size; timings are of a step."""

    batch_size: int
    steps: int
    """Steps a round."""
    ours: Timing
    original: Timing | None
    limit: dict[str, float]
    """Kind of an operator -> its least seconds on this machine, both ways."""
    id_check: Timing
    """Time of turning ids into rows and checking them, apart from the step."""
    loading: Loading | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures with flat keys; None for what was not measured."""
        limit_s = sum(self.limit.values())
        values: dict[str, Any] = {
            "batch_size": self.batch_size,
            "steps": self.steps,
            "rounds": len(self.ours.seconds),
            **figures(self.ours),
            "samples_per_s": self.batch_size / self.ours.median,
            "roofline_ms": limit_s * 1e3,
            **{
                f"roofline_{name}_ms": 1e3
                * sum(s for kind, s in self.limit.items() if kind.startswith(kinds))
                for name, kinds in LIMITS.items()
            },
            "roofline_share": limit_s / self.ours.median,
            **figures(self.id_check),
            "id_check_share": ratio(self.id_check, self.ours)[0],
            **dict.fromkeys(("speedup", "speedup_interval", "verdict")),
        }
        if self.original is not None:
            values |= figures(self.original) | beside(self.ours, self.original)
            values["original_samples_per_s"] = self.batch_size / self.original.median
        return values | (self.loading.to_dict() if self.loading is not None else {})


def measure(
    arch: Arch,
    batch_sizes: Sequence[int],
    machine: Machine,
    *,
    precision: ComputeDtype,
    ids: Ids,
    optimizer: str,
    rounds: int,
    against: Path | None = None,
    loading: bool = False,
) -> tuple[list[Measured], float | None]:
    """Time the training step: forward, loss, backward, update.

    Args:
        arch: Model and tables.
        batch_sizes: Sizes to measure one after the other, with the same model.
        machine: This one, whose limits stand beside.
        precision: Of our MLPs' products; the original computes in float32.
        ids: How ids are distributed.
        optimizer: As for `dlrm.optim.find`; the original has no Adam.
        rounds: Rounds of each candidate.
        against: A clone of the original; None to measure ours alone.
        loading: Also time it with the batches read from a prepared dataset.

    Returns:
        The step at every batch size; and the largest difference of the losses of the first steps of
        both, from equal parameters, None without the original.

    Raises:
        ConfigError: The clone is none, or the original has no such optimizer.

    """
    # First of all, because it fails early.
    module = None if against is None else load(against)
    ours = LocalStep(arch, precision, optimizer)
    original = None if module is None else Original(module, arch, optimizer, ours.model)
    predictor = Predictor(machine, ours.config, arch.schema, train=True)
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
                        abs(ours.step(batch) - original.step(other))
                        for batch, other in islice(zip(batches, its, strict=True), COMPARED_STEPS)
                    )
                candidates["original"] = in_turn(original.step, its, steps)
            timed = interleave(
                candidates, rounds=rounds, after_round=lambda task=task: bar.advance(task)
            )
            limit: dict[str, float] = {}
            for part in predictor.parts(Shape(batch_size, arch.pooling, ids)):
                limit[part.kind] = limit.get(part.kind, 0.0) + predictor.least_s(part)
            rows.append(
                Measured(
                    batch_size=batch_size,
                    steps=steps,
                    ours=timed["ours"].per(steps),
                    original=timed["original"].per(steps) if original is not None else None,
                    limit=limit,
                    id_check=timed["id_check"].per(steps),
                    loading=measure_loading(arch, batch_size, ids, rounds, ours, original)
                    if loading
                    else None,
                )
            )
    return rows, difference
