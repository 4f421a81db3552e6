"""FBGEMM's embedding tables on the CPU, where the package fbgemm-gpu-cpu can be imported.

It comes with the extra `torchrec`, and is needed for nothing else: version 1.8.0 is the one that
works with torch 2.13.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlrm import optim
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.parallel.torchrec.probe import quiet


def unavailable(optimizer: str = "sgd") -> str | None:
    """Return why FBGEMM cannot be measured with an optimizer; None when it can."""
    if optim.find(optimizer).declaration.fbgemm is None:
        return f"on the CPU it has no {optimizer}"
    try:
        _tables()
    except (ImportError, OSError, AttributeError) as error:
        return f"fbgemm-gpu-cpu cannot be imported ({error})"
    return None


class Fbgemm:
    """All tables as one operator, which updates the rows in its backward pass.

    Args:
        num_embeddings: Rows of each of the T tables.
        dim: D.
        optimizer: One that it has, see `unavailable`.

    """

    def __init__(self, num_embeddings: Sequence[int], dim: int, optimizer: str):
        name = optim.find(optimizer).declaration.fbgemm
        assert name is not None
        tables = _tables()
        import fbgemm_gpu.split_embedding_configs as configs  # pyright: ignore[reportMissingImports]

        self.tables = tables.SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[
                (n, dim, tables.EmbeddingLocation.HOST, tables.ComputeDevice.CPU)
                for n in num_embeddings
            ],
            optimizer=getattr(configs.EmbOptimType, name),
            learning_rate=LEARNING_RATE,
            pooling_mode=tables.PoolingMode.SUM,
            device=torch.device("cpu"),
        )

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Look up, propagate a gradient (B, T * D) and update.

        Args:
            batch: Ids (T * B,), table after table; offsets (T * B + 1,); the gradient.

        """
        ids, offsets, grad = batch
        self.tables(ids, offsets).backward(grad)


def _tables() -> Any:
    with quiet():
        import fbgemm_gpu.split_table_batched_embeddings_ops_training as tables  # pyright: ignore[reportMissingImports]

    return tables
