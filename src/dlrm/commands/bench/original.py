"""`dlrm bench original`: our training step beside that of the project that this one follows."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dlrm.bench import results
from dlrm.bench import training as training_bench
from dlrm.bench.arch import ARCHS, Arch
from dlrm.bench.batches import Ids, batch_sizes
from dlrm.bench.watch import Watch
from dlrm.commands.bench.original_result import BenchOriginalResult
from dlrm.errors import ConfigError, unknown
from dlrm.nn import precision as precisions
from dlrm.nn.embedding import Storage
from dlrm.optim import find


def bench_original(
    clone: Annotated[Path | None, tyro.conf.Positional] = None,
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    ids: Ids = "uniform",
    optim: str = "sgd",
    storage: Storage = "fp32",
    rounds: int = 11,
    rows_scale: float = 1.0,
    loading: bool = False,
    out: Path | None = None,
) -> BenchOriginalResult:
    """Time the training step: forward, loss, backward and update, on batches held in memory.

    Beside it, round by round, the original's on the same batches and tables; and the limit that
    this machine's matrix products and memory set.

    Args:
        clone: Of github.com/facebookresearch/dlrm; without one ours is measured alone.
        arch: criteo-kaggle or criteo-terabyte.
        batch: Batch sizes, separated by commas.
        precision: Of the MLPs' products; auto is bf16 where the CPU multiplies it natively.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer: sgd, adagrad, rowwise_adagrad or adam.
        storage: Of our tables: fp32, bf16 or split; those of others are fp32.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        loading: Also time training over a prepared dataset.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning, or the clone is none.

    """
    scaled, sizes = checked(arch, rows_scale, batch, rounds, optim)
    scaled = scaled.stored(storage)
    resolved = precisions.resolve(precision)
    with Watch() as watch:
        measured = training_bench.measure(
            scaled,
            sizes,
            precision=resolved,
            ids=ids,
            optimizer=optim,
            rounds=rounds,
            against=clone,
            loading=loading,
        )
    result = BenchOriginalResult(
        arch=arch,
        rows_scale=rows_scale,
        precision=resolved,
        ids=ids,
        optim=optim,
        storage=storage,
        machine={**results.machine(), **watch.seen.to_dict()},
        warning=watch.seen.warning,
        measured=measured,
    )
    if out is not None:
        result.save(out)
    return result


def checked(
    arch: str, rows_scale: float, batch: str, rounds: int, optim: str
) -> tuple[Arch, list[int]]:
    """Return the sizes that a command line asks for, or say what has no meaning."""
    if arch not in ARCHS:
        raise unknown("arch", arch, ARCHS)
    find(optim)
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    return ARCHS[arch].scaled(rows_scale), batch_sizes(batch)
