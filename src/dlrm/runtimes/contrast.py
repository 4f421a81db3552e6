"""The same trained model on every runtime that is installed: parity, latency, start-up time, size.

Parity comes from the model's own rows and from `probes`; time from batches of those rows, which
rotate, while the runtimes take turns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.metrics import measure
from dlrm.runtimes import runtime as catalogue
from dlrm.runtimes.runtime import Export, Options, Runtime, Session
from dlrm.runtimes.torch_eager import EagerSession
from dlrm.runtimes.trained import TrainedModel
from dlrm.runtimes.verify import answers, difference, drawn, probes, scores_of, verdict
from dlrm.schema import Schema, Task

SIZES = (1, 64, 1024)
"""Samples of the batches that are timed."""
INPUTS = 16
"""Batches of each size that take turns."""
BURST = 8
"""Calls of one runtime before the next has its turn."""
LEAST_CALLS = 40
SHARE_S = 1.0
"""Seconds that each runtime has for each size, at least `LEAST_CALLS` calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Microseconds of a call."""

    p50_us: float
    p99_us: float
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A runtime, and how it answers."""

    name: str
    title: str
    missing: str | None = None
    """Why it was not run: its packages are not installed, or it cannot express the model."""
    about: dict[str, Any] | None = None
    """What its session says: version, threads, precision."""
    max_abs_diff: float | None = None
    """Largest difference of a probability from eager float32; of a regression see `difference`."""
    rank_flips: int | None = None
    """Neighbours in the order of eager's scores that are the other way round."""
    auc_change: float | None = None
    """Change of the AUC of the first label; None of a regression."""
    verdict: str | None = None
    """equal; reduced precision, declared; or failed."""
    prepare_s: float | None = None
    """Seconds to make the artefact; None where it was there."""
    start_up_s: float | None = None
    """Seconds to open it and to answer for the first time."""
    size_bytes: int | None = None
    latency: Mapping[int, Latency] | None = None
    """Samples of a batch -> microseconds of a call."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        finite = self.max_abs_diff is None or np.isfinite(self.max_abs_diff)
        return {
            **asdict(replace(self, max_abs_diff=self.max_abs_diff if finite else None)),
            "latency": {str(n): asdict(t) for n, t in (self.latency or {}).items()},
        }


def contrast(
    trained: TrainedModel,
    names: Sequence[str],
    batches: Sequence[Batch],
    options: Options,
    *,
    artefacts: Sequence[Path] = (),
    sizes: Sequence[int] = SIZES,
    tick: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Run a trained model on several runtimes.

    Args:
        trained: The model, in the precision that eager shall compute in.
        names: Of runtimes, see `dlrm.runtimes.runtime.RUNTIMES`.
        batches: Rows with labels.
        options: How they compute.
        artefacts: Exports that are there already, each run in place of what its runtime would make.
        sizes: Samples of the batches that are timed.
        tick: Called after each runtime.

    Raises:
        RunError: An artefact is none, was altered, or is of another model.
        ConfigError: There is no such runtime; lists them.

    """
    exact = trained if trained.dtype == "fp32" else trained.computing("fp32")
    asked = [*batches, *probes(trained.schema)]
    expected = answers(EagerSession(exact.copied()), asked)
    given = {name: path for path in artefacts for name in (_runtime_of(path),)}
    rows: list[Row] = []
    sessions: dict[str, Session] = {}
    with TemporaryDirectory(prefix="dlrm-") as folder:
        for name in names:
            chosen = catalogue.find(name)
            path = given.get(name)
            row = Row(name=name, title=chosen.title, missing=chosen.why_missing())
            if row.missing is None:
                try:
                    row, session = _opened(row, chosen, trained, path, Path(folder), options)
                    sessions[name] = session
                    actual = answers(session, asked)
                    row = _compared(row, session, expected, actual, batches, trained)
                except ConfigError as error:
                    row = replace(row, missing=str(error))
            rows.append(row)
            tick()
        timed = latencies(sessions, trained.schema, batches, sizes)
    return [replace(row, latency=timed.get(row.name)) for row in rows]


def _runtime_of(path: Path) -> str:
    """Return the runtime that an artefact is for, by its name and by what is in it."""
    suffixes = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
    if path.suffix not in suffixes:
        raise ConfigError(f"{path} is no export: expected {', '.join(suffixes)}")
    if path.suffix == ".pt2":
        from dlrm.runtimes.torch_program import is_compiled

        return "aoti" if is_compiled(path) else "torch"
    return suffixes[path.suffix]


def _opened(
    row: Row,
    chosen: Runtime,
    trained: TrainedModel,
    path: Path | None,
    folder: Path,
    options: Options,
) -> tuple[Row, Session]:
    """Prepare and open an artefact, and take the times."""
    if path is None:
        path = folder / f"{row.name}{chosen.suffix}"
        start = time.perf_counter()
        chosen.prepare(trained, path, options)
        row = replace(row, prepare_s=time.perf_counter() - start)
        if isinstance(chosen, Export):
            chosen.write_metadata(path, catalogue.metadata_of(trained))
    elif isinstance(chosen, Export):
        chosen.check(path, trained)
    first = probes(trained.schema)[0]
    start = time.perf_counter()
    session = chosen.open(path, options)
    session.logits(first)
    start_up_s = time.perf_counter() - start
    files = chosen.files(path) if isinstance(chosen, Export) else [path]
    size_bytes = sum(file.stat().st_size for file in files)
    row = replace(row, start_up_s=start_up_s, size_bytes=size_bytes, about=session.describe())
    return row, session


def _compared(
    row: Row,
    session: Session,
    expected: Sequence[NDArray[np.float32]],
    actual: Sequence[NDArray[np.float32]],
    batches: Sequence[Batch],
    trained: TrainedModel,
) -> Row:
    """Add how answers differ from the expected ones."""
    task = trained.schema.task
    apart = difference(expected, actual, task)
    count = len(batches)
    one, other = (np.concatenate(parts[:count]) for parts in (expected, actual))
    change = None
    if task == "classification" and np.isfinite(other).all():
        labels = np.concatenate([batch.labels.numpy() for batch in batches])
        before, after = (measure(z[:, 0], labels[:, 0]).auc for z in (one, other))
        change = None if before is None or after is None else after - before
    return replace(
        row,
        max_abs_diff=apart,
        rank_flips=rank_flips(one, other, task),
        auc_change=change,
        verdict=verdict(apart, session),
    )


def rank_flips(
    expected: NDArray[np.float32], actual: NDArray[np.float32], task: Task = "classification"
) -> int:
    """Return how many neighbours in the order of expected scores (n, K) are the other way round."""
    flips = 0
    pairs = zip(scores_of(expected, task).T, scores_of(actual, task).T, strict=True)
    for one, other in pairs:
        order = np.argsort(one, kind="stable")
        flips += int(((np.diff(one[order]) > 0) & (np.diff(other[order]) < 0)).sum())
    return flips


def latencies(
    sessions: Mapping[str, Session], schema: Schema, batches: Sequence[Batch], sizes: Sequence[int]
) -> dict[str, dict[int, Latency]]:
    """Return the time of `Session.run`, by runtime and samples of a batch."""
    timed: dict[str, dict[int, Latency]] = {name: {} for name in sessions}
    for size in sizes:
        pieces = [
            batch.slice(start, start + size)
            for batch in batches
            for start in range(0, len(batch) - size + 1, size)
        ][:INPUTS]
        # Where there are too few rows, random ones.
        pieces = pieces or [drawn(schema, size, seed) for seed in range(INPUTS)]
        inputs = {
            name: cycle([session.inputs(piece) for piece in pieces])
            for name, session in sessions.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in sessions}
        for name, session in sessions.items():
            for _ in range(BURST):
                session.run(next(inputs[name]))
        end = time.perf_counter() + SHARE_S * len(sessions)
        while time.perf_counter() < end or min(map(len, seconds.values())) < LEAST_CALLS:
            for name, session in sessions.items():
                for _ in range(BURST):
                    arguments = next(inputs[name])
                    start = time.perf_counter()
                    session.run(arguments)
                    seconds[name].append(time.perf_counter() - start)
        for name, values in seconds.items():
            p50, p99 = (float(np.percentile(values, q)) * 1e6 for q in (50, 99))
            timed[name][size] = Latency(p50_us=p50, p99_us=p99, calls=len(values))
    return timed
