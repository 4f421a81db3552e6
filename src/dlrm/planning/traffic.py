"""How many bytes a plan makes ranks send, predicted.

    forward, ids          to the rank that keeps their rows
    forward, vectors      back: one for each feature; of rows that are spread, one for each id, and
                          of a list at most one from each rank that keeps rows of it
    backward, gradients   the way of the ids, as long as the vectors
    copied tables         a sum over all ranks of rows x (dim + 1) numbers, once a step
    dense parameters      a sum over all ranks of their gradients, once a step

A share (W - 1) / W of what is exchanged leaves its rank, and a sum over W ranks makes each of them
send 2 (W - 1) / W times its size.

Source: Patarasuk, Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations",
J. Parallel and Distributed Computing 2009 (the sums).
"""

from dataclasses import dataclass

from dlrm.planning.shards import Plan

ID_BYTES = 4
FIRST_BUCKET_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20
"""Gradients of dense parameters are summed in pieces of so many bytes. The first is small, so that
something is on its way early."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes between ranks. A sample is one of the whole batch, of which each rank has 1 / W."""

    ids: tuple[float, ...]
    """Bytes of ids that a sample has for each rank, wherever the sample is."""
    vectors: tuple[float, ...]
    """Bytes of vectors that each rank has for a sample; gradients are as long."""
    step_bytes: float
    """Bytes that each rank sends in a step of any size, for copied tables and dense parameters."""

    @property
    def world(self) -> int:
        """W."""
        return len(self.ids)

    @property
    def ids_sent(self) -> tuple[float, ...]:
        """Bytes of ids that each rank sends, by sample."""
        return self._to_owners(self.ids)

    @property
    def vectors_sent(self) -> tuple[float, ...]:
        """Bytes of vectors that each rank sends, by sample."""
        return tuple(size_bytes * (self.world - 1) / self.world for size_bytes in self.vectors)

    @property
    def gradients_sent(self) -> tuple[float, ...]:
        """Bytes of gradients that each rank sends, by sample."""
        return self._to_owners(self.vectors)

    @property
    def sent(self) -> tuple[float, ...]:
        """Bytes that each rank sends for a sample, in both directions."""
        parts = zip(self.ids_sent, self.vectors_sent, self.gradients_sent, strict=True)
        return tuple(map(sum, parts))

    @property
    def sample_bytes(self) -> float:
        """Bytes that all ranks together send for a sample."""
        return sum(self.sent)

    def _to_owners(self, owned: tuple[float, ...]) -> tuple[float, ...]:
        total = sum(owned)
        return tuple((total - rank_bytes) / self.world for rank_bytes in owned)


def traffic(plan: Plan, *, number_bytes: int = 4, dense_bytes: int = 0) -> Traffic:
    """Return what a plan of all tables makes ranks send.

    A number of a vector takes 4 bytes on its way, or 2 as bf16 and fp16; `dense_bytes` are those of
    the parameters that are no tables.
    """
    ids, vectors = [0.0] * plan.world, [0.0] * plan.world
    summed = dense_bytes
    for shard in plan.shards:
        table, rank = plan.tables[shard.table], shard.rank
        match plan.kinds[shard.table]:
            case "replicate":
                summed += 4 * table.num_embeddings * (table.dim + 1) if rank == 0 else 0
            case "row":
                share, single = shard.rows / table.num_embeddings, table.features - table.lists
                # Of a list of p ids, one sum comes from here if any of them is here.
                length = (table.pooling - single) / table.lists if table.lists else 0.0
                sums = table.lists * min(1.0, length * share)
                # Lists' lengths travel too.
                ids[rank] += ID_BYTES * (table.pooling * share + sums)
                vectors[rank] += number_bytes * table.dim * (single * share + sums)
            case _:
                ids[rank] += ID_BYTES * (table.pooling + table.lists)
                vectors[rank] += number_bytes * shard.columns * table.features
    return Traffic(tuple(ids), tuple(vectors), summed_bytes(summed, plan.world))


def summed_bytes(size_bytes: float, world: int) -> float:
    """Return what each rank sends to add up a buffer over all of them."""
    return 2 * (world - 1) / world * size_bytes
