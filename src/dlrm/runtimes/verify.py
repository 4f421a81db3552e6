"""What an export must answer before it is called done, and how far two answers are apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError
from dlrm.metrics import sigmoid
from dlrm.runtimes.runtime import Export, Options, Session, metadata_of
from dlrm.runtimes.torch_eager import EagerSession
from dlrm.runtimes.trained import TrainedModel
from dlrm.schema import Schema, Task

EQUAL = 1e-6
"""Difference of probabilities up to which two runtimes are equal."""
ROUNDING = 1e-5
"""Difference above which no export is written: rounding of large logits may reach some 1e-6."""
REDUCED = 1e-3
"""That up to which a runtime may differ that says it computes with less precision."""
SIZES = (1, 2, 63, 64, 1024)
"""Samples of the batches that an export must answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """An artefact that was checked."""

    path: Path
    files: tuple[Path, ...]
    """All files that it consists of, itself first."""
    max_abs_diff: float
    """Largest difference of a probability from eager's; of a regression see `difference`."""
    weights_sha256: str


def probes(schema: Schema, seed: int = 0) -> list[Batch]:
    """Return batches that reach the ends of what a schema allows.

    Each size of `SIZES` with random ids and lists; then first ids, last ones, which stand for
    unknown values, and empty lists, with dense features of zero and far from it.
    """
    batches = [drawn(schema, size, seed + at) for at, size in enumerate(SIZES)]
    for last in (False, True):
        whole = drawn(schema, 3, seed)
        one_hot = [n for n, f in _sized(schema) if not f]
        batches.append(
            Batch(
                torch.full_like(whole.dense, 4.0 * last),
                torch.tensor([[(n - 1) * last for n in one_hot]] * 3).long().view(3, -1),
                whole.labels,
                _ends(schema, 3, last=last),
            )
        )
    return batches


def _sized(schema: Schema) -> list[tuple[int, bool]]:
    """Return the rows of each feature's table, and whether it is a list."""
    pairs = zip(schema.num_embeddings, schema.features, strict=True)
    return [(rows, feature.is_list) for rows, feature in pairs]


def drawn(schema: Schema, samples: int, seed: int) -> Batch:
    """Return random samples; a third of the lists are empty."""
    generator = torch.Generator().manual_seed(seed)
    single = torch.tensor([rows for rows, is_list in _sized(schema) if not is_list])
    several = torch.tensor([rows for rows, is_list in _sized(schema) if is_list])
    uniform = torch.rand(samples, len(single), generator=generator, dtype=torch.float64)
    lists = None
    if len(several):
        groups = samples * len(several)
        lengths = (torch.randint(0, 9, (groups,), generator=generator) - 2).clamp(min=0)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        sizes = several.repeat(samples).repeat_interleave(lengths)
        values = torch.rand(len(sizes), generator=generator, dtype=torch.float64) * sizes
        lists = Jagged(values.long(), offsets)
    return Batch(
        torch.randn(samples, len(schema.dense), generator=generator),
        (uniform * single).long(),
        torch.zeros(samples, schema.num_labels),
        lists,
    )


def _ends(schema: Schema, samples: int, *, last: bool) -> Jagged | None:
    """Return lists that are all empty, or hold the last id of their table alone."""
    several = torch.tensor([rows for rows, is_list in _sized(schema) if is_list])
    if not len(several):
        return None
    groups = samples * len(several)
    if last:
        return Jagged((several - 1).repeat(samples), torch.arange(groups + 1))
    return Jagged(torch.zeros(0, dtype=torch.int64), torch.zeros(groups + 1, dtype=torch.int64))


def scores_of(logits: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Return what is compared of logits (B, K): probabilities, or the predictions themselves."""
    return sigmoid(logits) if task == "classification" else logits.astype(np.float64)


def difference(
    expected: Sequence[NDArray[np.float32]], actual: Sequence[NDArray[np.float32]], task: Task
) -> float:
    """Return the largest difference of two runtimes' answers to the same batches.

    Of probabilities, or of a regression's predictions as a share of the largest expected one, where
    that exceeds 1. Infinite where an answer is no number or of another shape.
    """
    largest = 0.0
    for one, other in zip(expected, actual, strict=True):
        if one.shape != other.shape or not np.isfinite(other).all():
            return float("inf")
        if one.size:
            a, b = scores_of(one, task), scores_of(other, task)
            unit = max(1.0, float(np.abs(a).max()))
            largest = max(largest, float(np.abs(a - b).max()) / unit)
    return largest


def verdict(max_abs_diff: float, session: Session | None = None) -> str:
    """Say what a difference means: equal, reduced precision that is declared, or failed."""
    if max_abs_diff <= EQUAL:
        return "equal"
    if session is not None and session.reduced and max_abs_diff <= REDUCED:
        return "reduced precision, declared"
    return "failed"


def answers(session: Session, batches: Sequence[Batch]) -> list[NDArray[np.float32]]:
    """Return the logits (B, K) of each batch."""
    return [session.logits(batch) for batch in batches]


def export(trained: TrainedModel, runtime: Export, path: Path, options: Options) -> Exported:
    """Write an artefact, compare its answers with eager ones, and let it say what it is.

    Nothing is left where it fails.

    Raises:
        MissingExtraError: A package is not installed.
        ConfigError: The path does not end as the artefacts of this runtime do, the runtime cannot
            express an option or the model, or the artefact's answers are others.

    """
    if path.suffix != runtime.suffix:
        raise ConfigError(f"--out {path}: {runtime.title} writes {runtime.suffix} files")
    path.parent.mkdir(parents=True, exist_ok=True)
    batches = probes(trained.schema)
    with TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        # Its own name, because files beside it are named after it.
        unfinished = Path(folder) / path.name
        runtime.prepare(trained, unfinished, options)
        runtime.write_metadata(unfinished, metadata_of(trained))
        session = runtime.open(unfinished, options)
        expected = answers(EagerSession(trained.copied()), batches)
        apart = difference(expected, answers(session, batches), trained.schema.task)
        if not apart <= ROUNDING:
            raise ConfigError(
                f"{runtime.title} answers otherwise than PyTorch: by up to {apart:.2g}, and at "
                f"most {ROUNDING:.0e} is rounding; nothing was written"
            )
        metadata = {
            **metadata_of(trained),
            "dlrm.max_abs_diff": f"{apart:.3g}",
            "dlrm.content_sha256": runtime.content_sha256(unfinished),
        }
        runtime.write_metadata(unfinished, metadata)
        files = runtime.files(unfinished)
        # The artefact itself last: where it is, all of it is.
        for file in reversed(files):
            file.replace(path.parent / file.name)
    return Exported(
        path=path,
        files=tuple(path.parent / file.name for file in files),
        max_abs_diff=apart,
        weights_sha256=trained.sha256,
    )
