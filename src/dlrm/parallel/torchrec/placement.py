"""Where TorchRec puts tables: as a plan of ours says, in its words."""

from collections.abc import Sequence

import torch

from dlrm.parallel.torchrec.probe import probe, quiet
from dlrm.planning.shards import Kind, Shard

probe()
with quiet():
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharding_spec.api import EnumerableShardingSpec
    from torchrec.distributed.comm import get_local_size
    from torchrec.distributed.embedding_types import EmbeddingComputeKernel
    from torchrec.distributed.types import ParameterSharding, ShardingType

LANES = 4
"""Columns of each part of a table are a multiple of it, which FBGEMM's CUDA kernels need, and
TorchRec asks for on the CPU too."""


def widened(columns: int) -> int:
    """Return the columns that TorchRec keeps for a table with so many."""
    return -(-columns // LANES) * LANES


def as_placed(
    kinds: Sequence[Kind],
    shards: Sequence[Shard],
    rows: Sequence[int],
    dim: int,
    world: int,
    device: torch.device,
) -> list[ParameterSharding]:
    """Say a placement in TorchRec's words.

    TorchRec cuts rows into W blocks of ceil(rows / W), whatever the ranges of the shards are; where
    that leaves ranks without rows, the table stays whole. Columns are cut where a multiple of four
    is next. `kinds`, `shards` and `rows` are those of all tables, the device that of this rank.
    """
    width, placements = widened(dim), []
    by_table: dict[int, list[Shard]] = {}
    for shard in shards:
        by_table.setdefault(shard.table, []).append(shard)
    for t, (kind, n) in enumerate(zip(kinds, rows, strict=True)):
        table_shards = by_table[t]
        if kind == "replicate":
            placements.append(
                ParameterSharding(
                    sharding_type=ShardingType.DATA_PARALLEL.value,
                    compute_kernel=EmbeddingComputeKernel.DENSE.value,
                    ranks=list(range(world)),
                )
            )
            continue
        if kind == "column":
            by, parts = ShardingType.COLUMN_WISE, _columns(table_shards, n, width)
        elif kind == "row" and _has_blocks(n, world):
            block = -(-n // world)
            ends = [min(n, block * r) for r in range(world + 1)]
            parts = [(r, ends[r], ends[r + 1], 0, width) for r in range(world)]
            by = ShardingType.ROW_WISE
        else:
            by, parts = ShardingType.TABLE_WISE, [(table_shards[0].rank, 0, n, 0, width)]
        placements.append(
            ParameterSharding(
                sharding_type=by.value,
                compute_kernel=EmbeddingComputeKernel.FUSED.value,
                ranks=[part[0] for part in parts],
                sharding_spec=EnumerableShardingSpec(
                    [
                        ShardMetadata(
                            shard_offsets=[first_row, first_column],
                            shard_sizes=[last_row - first_row, last_column - first_column],
                            placement=_placement(rank, world, device),
                        )
                        for rank, first_row, last_row, first_column, last_column in parts
                    ]
                ),
            )
        )
    return placements


def _has_blocks(rows: int, world: int) -> bool:
    """Return whether each rank gets a row. FBGEMM takes a part without any for the next table."""
    return -(-rows // world) * (world - 1) < rows


def _columns(
    shards: Sequence[Shard], rows: int, width: int
) -> list[tuple[int, int, int, int, int]]:
    shards = sorted(shards, key=lambda shard: shard.first_column)
    ends = [LANES * round(shard.first_column / LANES) for shard in shards] + [width]
    return [
        (shard.rank, 0, rows, left, right)
        for shard, left, right in zip(shards, ends[:-1], ends[1:], strict=True)
        if left < right
    ]


def _placement(rank: int, world: int, device: torch.device) -> str:
    where = "cpu" if device.type == "cpu" else f"{device.type}:{rank % get_local_size(world)}"
    return f"rank:{rank}/{where}"
