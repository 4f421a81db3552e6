"""`dlrm bench embedding`: the embedding tables beside those of torch and of FBGEMM."""

from pathlib import Path

from dlrm.bench import embedding as embedding_bench
from dlrm.bench import results
from dlrm.bench.batches import Ids
from dlrm.bench.watch import Watch
from dlrm.commands.bench.embedding_result import BenchEmbeddingResult
from dlrm.commands.bench.original import checked
from dlrm.nn.embedding import Storage


def bench_embedding(
    *,
    arch: str = "criteo-kaggle",
    batch: str = "128,2048,16384",
    ids: Ids = "uniform",
    optim: str = "sgd",
    storage: Storage = "fp32",
    rounds: int = 11,
    rows_scale: float = 1.0,
    out: Path | None = None,
) -> BenchEmbeddingResult:
    """Time the embedding tables alone: lookup, backward and update.

    Beside them, round by round, one nn.EmbeddingBag a table with torch's sparse optimizer, and
    FBGEMM where fbgemm-gpu-cpu can be imported.

    Args:
        arch: criteo-kaggle or criteo-terabyte; its tables are used.
        batch: Batch sizes, separated by commas.
        ids: uniform, or zipf: ids by a power law.
        optim: The optimizer: sgd, adagrad, rowwise_adagrad or adam.
        storage: Of our tables: fp32, bf16 or split; those of others are fp32.
        rounds: Timed rounds of each candidate.
        rows_scale: Share of the rows of each table, where memory is short.
        out: Rows of results are appended to this file, as JSON lines.

    Raises:
        ConfigError: A setting has no meaning.

    """
    scaled, sizes = checked(arch, rows_scale, batch, rounds, optim)
    scaled = scaled.stored(storage)
    with Watch() as watch:
        measured, left_out = embedding_bench.measure(
            scaled, sizes, ids=ids, optimizer=optim, rounds=rounds
        )
    result = BenchEmbeddingResult(
        arch=arch,
        rows_scale=rows_scale,
        ids=ids,
        optim=optim,
        storage=storage,
        machine={**results.machine(), **watch.seen.to_dict()},
        warning=watch.seen.warning,
        measured=measured,
        left_out=left_out,
    )
    if out is not None:
        result.save(out)
    return result
