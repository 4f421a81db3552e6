"""Sharded tables against plain ones: vectors and gradients of whatever is sharded however."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import batches
from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError, IdError
from dlrm.nn.embedding import EmbeddingCollection, Layout, Storage, materialize
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.world import World
from dlrm.planning.placement import Kind, plan
from dlrm.planning.shards import Shard, Table
from dlrm.schema import Feature, Schema
from dlrm.schema import Table as SchemaTable

from .ranks import Ranks


@dataclass(frozen=True)
class Case:
    sizes: tuple[int, ...]
    """Rows of each table."""
    dim: int
    kinds: tuple[Kind, ...]
    """How each table is sharded."""
    samples: tuple[int, ...]
    """Samples of each rank."""
    features: tuple[tuple[int, str], ...]
    """Table and kind of each feature; several may have one table."""
    seed: int
    storage: Storage = "fp32"
    dtype: torch.dtype = torch.float32

    @property
    def world(self) -> int:
        return len(self.samples)

    @property
    def schema(self) -> Schema:
        # A table without a feature would be none of the collection.
        used = sorted({t for t, _ in self.features})
        return Schema(
            dense=(),
            tables=tuple(SchemaTable(name=f"T{t}", num_embeddings=self.sizes[t]) for t in used),
            features=tuple(
                Feature(name=f"F{f}", table=f"T{t}", kind=kind)  # pyright: ignore[reportArgumentType]
                for f, (t, kind) in enumerate(self.features)
            ),
        )

    @property
    def layout(self) -> Layout:
        return Layout.of(self.schema)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    kinds = st.sampled_from(("table", "row", "column", "replicate"))
    feature = st.tuples(
        st.integers(0, len(sizes) - 1), st.sampled_from(("one_hot", "bag", "sequence"))
    )
    return Case(
        sizes=tuple(sizes),
        dim=draw(st.integers(1, 5)),
        kinds=tuple(draw(kinds) for _ in sizes),
        samples=tuple(draw(st.lists(st.integers(0, 4), min_size=2, max_size=4))),
        features=tuple(draw(st.lists(feature, min_size=1, max_size=6))),
        seed=draw(st.integers(0, 1000)),
    )


def batch_of(case: Case) -> Batch:
    return batches.draw(case.schema, sum(case.samples), seed=case.seed)


def part_of(batch: Batch, case: Case, rank: int) -> Batch:
    first = sum(case.samples[:rank])
    return batch.slice(first, first + case.samples[rank])


def sharded(world: World, case: Case) -> ShardedCollection:
    shards: list[Shard] = []
    kinds: list[Kind] = []
    layout = case.layout
    for t, table in enumerate(layout.tables):
        kind = case.kinds[int(table.name[1:])]
        planned = Table(table.name, table.num_embeddings, case.dim, row_bytes=4 * case.dim)
        one = plan([planned], case.world, sharding=kind)
        kinds.append(one.kinds[0])
        for s in one.shards:
            # Other tables would go elsewhere: here, from rank to rank.
            rank = (s.rank + t) % case.world if one.kinds[0] == "table" else s.rank
            shards.append(Shard(t, rank, s.first_row, s.last_row, s.first_column, s.last_column))
    exchange = Exchange(
        world.rank, world.size, world.exchange, samples=case.samples, dtype=case.dtype
    )
    torch.manual_seed(case.seed)
    collection = ShardedCollection(
        layout, case.dim, storage=case.storage, kinds=kinds, shards=shards, exchange=exchange
    )
    return materialize(collection)


def plain(case: Case) -> EmbeddingCollection:
    torch.manual_seed(case.seed)
    return materialize(EmbeddingCollection(case.layout, case.dim, storage=case.storage))


def looked_up(tables: EmbeddingCollection | ShardedCollection, part: Batch, how: str):
    """Return pooled vectors and those of each list, one by one, as a model may ask for them."""
    if how == "ahead":
        tables.prefetch(part)
    if how == "weighted":
        blocks = tables.layout.blocks(part)
        found = [
            tables.pooled(block, torch.full(block.ids.shape, 2.0)).flatten(1) for block in blocks
        ]
        pooled = torch.cat(found, 1) if found else tables(part).flatten(1)
    else:
        pooled = tables(part).flatten(1)
    names = [feature.name for feature in tables.layout.features if feature.is_list]
    return pooled, [tables.sequence(part, name) for name in names if how != "pooled"]


def loss_of(case: Case, first: int, pooled: Tensor, lists: list[Jagged]) -> Tensor:
    """Return a sum over samples, whatever process has them."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    factors = torch.randn(sum(case.samples), pooled.shape[1], generator=generator)
    loss = (pooled * factors[first : first + len(pooled)]).sum()
    for each in lists:
        # The order of the ids counts.
        sample = torch.repeat_interleave(each.lengths)
        place = torch.arange(len(each.values)) - each.offsets[sample]
        loss = loss + (each.values * (1.0 + place[:, None])).square().sum()
    return loss


def gradient(collection: ShardedCollection) -> list[tuple[Shard, Tensor]]:
    """Return the dense gradient of each shard that a rank keeps."""
    found = []
    for _, weight, shard, place, *_ in collection.local_shards:
        grad = weight.grad
        dense = torch.zeros_like(weight) if grad is None else grad.to_dense()
        found.append((shard, dense[place : place + shard.rows]))
    return found


def fetch(world: World, case: Case, how: str):
    collection = sharded(world, case)
    part = part_of(batch_of(case), case, world.rank)
    pooled, lists = looked_up(collection, part, how)
    loss_of(case, sum(case.samples[: world.rank]), pooled, lists).backward()
    tables = [collection.table(t) for t in range(len(collection.layout.tables))]
    return pooled.detach(), [each.values.detach() for each in lists], gradient(collection), tables


def check(ranks: Ranks, case: Case, how: str, exact: bool = True) -> None:
    expected = plain(case)
    batch = batch_of(case)
    vectors, lists = looked_up(expected, batch, how)
    loss_of(case, 0, vectors, lists).backward()
    assert expected.weight.grad is not None
    grad = expected.weight.grad.to_dense()
    rtol, atol = (1e-5, 1e-6) if exact else (1e-2, 1e-2)
    for rank, (pooled, values, gradients, tables) in enumerate(
        ranks.run(fetch, case, how, world=case.world)
    ):
        first, last = sum(case.samples[:rank]), sum(case.samples[: rank + 1])
        torch.testing.assert_close(pooled, vectors[first:last].detach(), rtol=rtol, atol=atol)
        for mine, each in zip(values, lists, strict=True):
            wanted = each.values[each.offsets[first] : each.offsets[last]].detach()
            torch.testing.assert_close(mine, wanted, rtol=rtol, atol=atol)
        for shard, theirs in gradients:
            start = expected.starts[shard.table]
            ours = grad[start + shard.first_row : start + shard.last_row]
            ours = ours[:, shard.first_column : shard.last_column]
            torch.testing.assert_close(theirs, ours, rtol=rtol, atol=atol)
        for t, table in enumerate(tables):
            assert table.equal(expected.table(t).float())


@settings(deadline=None, max_examples=100)
@given(case=cases(), how=st.sampled_from(("pooled", "ahead", "at once", "weighted")))
def test_vectors_and_gradients_are_those_of_plain_tables(ranks: Ranks, case: Case, how: str):
    check(ranks, case, how)


KINDS: tuple[Kind, ...] = ("table", "row", "column", "replicate")
SHARED = ((0, "one_hot"), (1, "one_hot"), (2, "bag"), (3, "sequence"), (0, "sequence"), (1, "bag"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("features", [SHARED[:2], SHARED])
def test_vectors_may_travel_in_half_precision(ranks: Ranks, dtype, features):
    case = Case((7, 9, 5, 3), 4, KINDS, (3, 5), features, 1, dtype=dtype)
    check(ranks, case, "ahead", exact=False)


@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_tables_of_bfloat16_are_sharded_too(ranks: Ranks, storage):
    kinds: tuple[Kind, ...] = ("table", "row", "column", "row")
    check(ranks, Case((7, 9, 5, 3), 4, kinds, (3, 4, 2), SHARED, 1, storage), "at once")


def _wrong(world: World, case: Case) -> str:
    collection = sharded(world, case)
    part = part_of(batch_of(case), case, world.rank)
    part.ids[0, 1] = 99
    with pytest.raises(IdError) as raised:
        collection(part)
    return str(raised.value)


def test_a_wrong_id_is_named_before_anything_is_sent(ranks: Ranks):
    case = Case((7, 9), 4, ("table", "row"), (3, 4), ((0, "one_hot"), (1, "one_hot")), 1)
    for message in ranks.run(_wrong, case):
        assert message.startswith("F1: id 99 is out of range, its table has 9 rows")


def _another(world: World, case: Case) -> tuple[str, bool]:
    collection = sharded(world, case)
    part = part_of(batch_of(case), case, world.rank)
    again = part_of(batch_of(case), case, world.rank)
    collection.prefetch(again)
    # Nobody asks for those: they are forgotten.
    collection.prefetch(part)
    with pytest.raises(ConfigError, match="ids of one batch were sent ahead") as raised:
        collection(again)
    return str(raised.value), bool(collection(part).equal(collection(again)))


def test_only_the_batch_whose_ids_were_sent_ahead_is_taken_for_it(ranks: Ranks):
    case = Case((7, 9), 4, ("table", "row"), (3, 4), ((0, "one_hot"), (1, "bag")), 1)
    for message, equal in ranks.run(_another, case):
        assert "F0" in message
        assert equal


def test_columns_are_cut_into_equal_parts():
    layout = Layout.of(Schema.one_hot(0, [5]))
    shards = [Shard(0, 0, 0, 5, 0, 1), Shard(0, 1, 0, 5, 1, 4)]
    with pytest.raises(ValueError, match="must be equal"):
        ShardedCollection(
            layout, 4, kinds=["column"], shards=shards, exchange=Exchange(rank=0, size=2)
        )
