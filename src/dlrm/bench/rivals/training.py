"""The training step, beside the original's, round by round on the same batches and tables."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dlrm.bench.arch import Arch
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LocalStep
from dlrm.bench.rivals.loading import measure_loading
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
) -> tuple[list[dict[str, Any]], float | None]:
    """Time the training step, at one batch size after the other: forward, loss, backward, update.

    Beside it, where there is a clone, the original's, which computes in float32; `loading` also
    times training over a prepared dataset.

    Returns:
        The figures of a step at every batch size with flat keys, None for what was not measured;
        and the largest difference of the losses of the first steps of both, from equal parameters.

    Raises:
        ConfigError: The clone is none, or the original has no such optimizer.

    """
    # First of all, because it fails early.
    module = None if against is None else load(against)
    ours = LocalStep(arch, precision, optimizer)
    original = None if module is None else Original(module, arch, optimizer, ours.model)
    predictor = Predictor(machine, ours.config, arch.schema, train=True)
    rows: list[dict[str, Any]] = []
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
            timings = {name: timing.per(steps) for name, timing in timed.items()}
            row = {"batch_size": batch_size, "steps": steps, "rounds": rounds}
            row |= _figures(timings, batch_size)
            row |= _limits(predictor, Shape(batch_size, arch.pooling, ids), timings["ours"].median)
            if loading:
                row |= measure_loading(arch, batch_size, ids, rounds, ours, original)
            rows.append(row)
    return rows, difference


def _figures(timings: Mapping[str, Timing], batch_size: int) -> dict[str, Any]:
    ours, original = timings["ours"], timings.get("original")
    values = {
        **figures(ours),
        "samples_per_s": batch_size / ours.median,
        # Turning ids into rows and checking them, apart from the step.
        **figures(timings["id_check"]),
        "id_check_share": ratio(timings["id_check"], ours)[0],
        **dict.fromkeys(("speedup", "speedup_interval", "verdict")),
    }
    if original is not None:
        values |= figures(original) | beside(ours, original)
        values["original_samples_per_s"] = batch_size / original.median
    return values


def _limits(predictor: Predictor, shape: Shape, step_s: float) -> dict[str, float]:
    """Return the least time of the operators on this machine, both ways, and of kinds of them."""
    least_s = [(part.kind, predictor.least_s(part)) for part in predictor.parts(shape)]
    limit_s = sum(seconds for _, seconds in least_s)
    return {
        "roofline_ms": limit_s * 1e3,
        **{
            f"roofline_{name}_ms": 1e3 * sum(s for kind, s in least_s if kind.startswith(kinds))
            for name, kinds in LIMITS.items()
        },
        "roofline_share": limit_s / step_s,
    }
