"""Sharded tables against plain ones: vectors and gradients of whatever is spread however."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import IdError
from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.plan import Kind, plan
from dlrm.parallel.shards import Table
from dlrm.parallel.world import World

from .ranks import Ranks


@dataclass(frozen=True)
class Case:
    rows: tuple[int, ...]
    dim: int
    kinds: tuple[Kind, ...]
    samples: tuple[int, ...]
    """Of each rank."""
    bags: bool
    seed: int
    storage: Storage = "fp32"
    dtype: torch.dtype = torch.float32

    @property
    def world(self) -> int:
        return len(self.samples)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    kinds = st.sampled_from(("table", "row", "column", "replicate"))
    return Case(
        rows=tuple(rows),
        dim=draw(st.integers(1, 5)),
        kinds=tuple(draw(kinds) for _ in rows),
        samples=tuple(draw(st.lists(st.integers(0, 4), min_size=2, max_size=4))),
        bags=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


def batch_of(case: Case) -> Batch:
    generator = torch.Generator().manual_seed(case.seed)
    count, tables = sum(case.samples), len(case.rows)
    if case.bags:
        lengths = torch.randint(0, 4, (count * tables,), generator=generator)
    else:
        lengths = torch.ones(count * tables, dtype=torch.int64)
    sizes = torch.tensor(case.rows).repeat(count).repeat_interleave(lengths)
    ids = (torch.rand(len(sizes), generator=generator) * sizes).long()
    labels = torch.zeros(count)
    dense = torch.zeros(count, 0)
    if case.bags:
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return Batch(dense, ids, labels, offsets)
    return Batch(dense, ids.view(count, tables), labels)


def part_of(batch: Batch, case: Case, rank: int) -> Batch:
    first = sum(case.samples[:rank])
    return batch.slice(first, first + case.samples[rank])


def sharded(world: World, case: Case) -> ShardedCollection:
    shards = []
    for t, (rows, kind) in enumerate(zip(case.rows, case.kinds, strict=True)):
        table = Table(name=f"{t}", rows=rows, dim=case.dim, row_bytes=4 * case.dim)
        one = plan([table], case.world, sharding=kind)
        for s in one.shards:
            # Other tables would go elsewhere: here, from rank to rank.
            rank = (s.rank + t) % case.world if one.kinds[0] == "table" else s.rank
            shards.append(type(s)(t, rank, s.first_row, s.last_row, s.first_column, s.last_column))
    kinds: list[Kind] = []
    for t in range(len(case.rows)):
        mine = [s for s in shards if s.table == t]
        if len(mine) == 1:
            kinds.append("table")
        elif case.kinds[t] == "replicate":
            kinds.append("replicate")
        else:
            kinds.append("column" if mine[0].columns < case.dim else "row")
    wire = Wire(world.rank, world.size, world.exchange, samples=case.samples, dtype=case.dtype)
    torch.manual_seed(case.seed)
    return ShardedCollection(
        case.rows, case.dim, storage=case.storage, kinds=kinds, shards=shards, wire=wire
    )  # fmt: skip


def plain(case: Case) -> EmbeddingCollection:
    torch.manual_seed(case.seed)
    return EmbeddingCollection(case.rows, case.dim, storage=case.storage)


def coefficients(case: Case) -> Tensor:
    shape = (sum(case.samples), len(case.rows), case.dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(case.seed + 1))


def gradient(collection: ShardedCollection) -> list[tuple[int, int, int, Tensor]]:
    """Table, first row, first column and dense gradient of what a rank keeps."""
    found = []
    for weight, shard, place, _ in collection.kept:
        grad = weight.grad
        dense = torch.zeros_like(weight) if grad is None else grad.to_dense()
        part = dense[place : place + shard.rows]
        found.append((shard.table, shard.first_row, shard.first_column, part))
    return found


def fetch(world: World, case: Case, how: str):
    collection = sharded(world, case)
    part = part_of(batch_of(case), case, world.rank)
    first = sum(case.samples[: world.rank])
    if how == "early":
        collection.begin(part.ids, part.offsets)
    if how == "each":
        found = collection.each(part.ids, part.offsets)
        pooled = found
        if part.offsets is not None:
            pooled = collection(part.ids, part.offsets, torch.full((len(part.ids),), 2.0))
    else:
        found = pooled = collection(part.ids, part.offsets)
    factors = coefficients(case)[first : first + case.samples[world.rank]]
    (pooled * factors).sum().backward()
    tables = [collection.table(t) for t in range(len(case.rows))]
    return found.detach(), gradient(collection), tables


def check(ranks: Ranks, case: Case, how: str, exact: bool = True) -> None:
    expected = plain(case)
    batch = batch_of(case)
    vectors = expected(batch.ids, batch.offsets)
    (vectors * coefficients(case) * (2 if how == "each" and case.bags else 1)).sum().backward()
    assert expected.weight.grad is not None
    grad = expected.weight.grad.to_dense()
    rtol, atol = (1e-5, 1e-6) if exact else (1e-2, 1e-2)
    for rank, (found, gradients, tables) in enumerate(
        ranks.run(fetch, case, how, world=case.world)
    ):
        first = sum(case.samples[:rank])
        if how == "each" and case.bags:
            part = part_of(batch, case, rank)
            wanted = expected.each(part.ids, part.offsets)
        else:
            wanted = vectors[first : first + case.samples[rank]]
        torch.testing.assert_close(found, wanted.detach(), rtol=rtol, atol=atol)
        for t, row, column, theirs in gradients:
            start = sum(case.rows[:t]) + row
            ours = grad[start : start + len(theirs), column : column + theirs.shape[1]]
            torch.testing.assert_close(theirs, ours, rtol=rtol, atol=atol)
        for t, table in enumerate(tables):
            assert table.equal(expected.table(t).float())


@settings(deadline=None, max_examples=60)
@given(case=cases(), how=st.sampled_from(("at once", "early", "each")))
def test_vectors_and_gradients_are_those_of_plain_tables(ranks: Ranks, case: Case, how: str):
    check(ranks, case, how)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bags", [False, True])
def test_vectors_may_travel_in_half_precision(ranks: Ranks, dtype, bags):
    kinds = ("table", "row", "column", "replicate")
    case = Case((7, 9, 5, 3), 4, kinds, (3, 5), bags, 1, dtype=dtype)
    check(ranks, case, "early", exact=False)


@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_tables_of_bfloat16_are_spread_too(ranks: Ranks, storage):
    case = Case((7, 9, 5, 3), 4, ("table", "row", "column", "row"), (3, 4, 2), True, 1, storage)
    check(ranks, case, "at once")


def _wrong(world: World, case: Case) -> str:
    collection = sharded(world, case)
    part = part_of(batch_of(case), case, world.rank)
    part.ids[0, 1] = 99
    with pytest.raises(IdError) as raised:
        collection(part.ids)
    return str(raised.value)


def test_a_wrong_id_is_named_before_anything_is_sent(ranks: Ranks):
    case = Case((7, 9), 4, ("table", "row"), (3, 4), False, 1)
    for message in ranks.run(_wrong, case):
        assert message.startswith("table 1: id 99 is out of range")
