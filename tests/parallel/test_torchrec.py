"""TorchRec's tables are the plain ones: losses, weights and state, whatever the ranks and kinds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from batches import draw
from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError, MissingExtraError
from dlrm.nn.embedding import (
    Block,
    EmbeddingCollection,
    Layout,
    Storage,
    collections_of,
    materialize,
    parameter_groups,
)
from dlrm.nn.initializer import constant
from dlrm.nn.tables import TablesConfig
from dlrm.optim import build
from dlrm.optim.config import OptimConfig
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.model import parallelize
from dlrm.parallel.torchrec.fused import Fused, fused
from dlrm.parallel.torchrec.probe import probe
from dlrm.parallel.world import World
from dlrm.planning.placement import plan
from dlrm.planning.shards import Shard
from dlrm.planning.tables import contents
from dlrm.schema import Feature, Schema, Table
from parallel.ranks import Ranks

try:
    probe()
except (MissingExtraError, ConfigError) as error:
    pytest.skip(str(error), allow_module_level=True)

SIZES, DIM, STEPS, BATCH = (7, 60, 3, 40, 1), 8, 50, 24
EPS = 1e-3


def schema_of(sizes: Sequence[int], features: str) -> Schema:
    """Return a schema of tables with a feature each, or of tables that several features share."""
    tables = tuple(Table(name=f"T{t}", num_embeddings=n) for t, n in enumerate(sizes))
    kind: Any = "bag" if features == "lists" else "one_hot"
    own = tuple(Feature(name=f"C{t}", table=f"T{t}", kind=kind) for t in range(len(sizes)))
    if features == "mixed":
        own = (
            replace(own[0], kind="bag"),
            *own[1:],
            Feature(name="history", table="T1", kind="sequence"),
            Feature(name="other", table="T1"),
            Feature(name="more", table=f"T{len(sizes) - 1}", kind="bag"),
        )
    return Schema(dense=(), tables=tables, features=own)


def layout_of(sizes: Sequence[int], features: str = "one-hot") -> Layout:
    return Layout.of(schema_of(sizes, features))


def made(world: World, layout: Layout, dim: int, kinds: Any, **options: Any) -> Any:
    """Return tables of these kinds."""
    from dlrm.parallel.torchrec.collection import TorchRecCollection

    W = world.size
    options = {"exchange": Exchange(world.rank, W, world.exchange), **options}
    shards = []
    for t, (kind, n) in enumerate(zip(kinds, layout.sizes, strict=True)):
        if kind == "column":
            ends = [dim * r // W for r in range(W + 1)]
            parts = [Shard(t, r, 0, n, ends[r], ends[r + 1]) for r in range(W)]
            shards += [part for part in parts if part.columns]
        else:
            # Of a row-wise table TorchRec chooses the ranges itself.
            shards.append(Shard(t, t % W, 0, n, 0, dim))
    return materialize(TorchRecCollection(layout, dim, kinds=kinds, shards=shards, **options))


def batches(schema: Schema, steps: int) -> list[Batch]:
    return [draw(schema, BATCH, seed=step) for step in range(steps)]


def loss_of(vectors: Tensor, labels: Tensor, share: float) -> Tensor:
    flat = vectors.flatten(1)
    logits = (flat * torch.linspace(-0.5, 0.5, flat.shape[1])).sum(1) + (flat**2).mean(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return loss(logits, labels[:, 0], reduction="sum") * share


def learning_rate(step: int) -> float:
    return 0.2 / (1 + step / 20)


def plain(name: str, layout: Layout, dim: int, data: list[Batch]) -> tuple[list[float], Any]:
    torch.manual_seed(1)
    tables = materialize(EmbeddingCollection(layout, dim))
    options: dict[str, Any] = {} if name == "sgd" else {"eps": EPS}
    optimizer = build(name, parameter_groups(tables), 1.0, **options)
    losses = []
    for step, batch in enumerate(data):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        loss = loss_of(tables(batch), batch.labels, 1 / len(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    sums = optimizer.state[tables.weight].get("sum")
    sizes = list(layout.sizes)
    found = [tables.table(t) for t in range(len(sizes))]
    return losses, (found, None if sums is None else sums.split(sizes))


def sharded(
    world: World,
    name: str,
    layout: Layout,
    dim: int,
    kinds: Sequence[str] | str,
    data: list[Batch],
    uneven: bool = False,
) -> tuple[list[float], list[Any], list[Tensor]]:
    torch.manual_seed(1)
    tables = made(world, layout, dim, kinds, optimizer=Fused(name, EPS))
    assert not list(tables.parameters())
    losses = []
    for step, batch in enumerate(data):
        B = len(batch)
        ends = [B * r // world.size for r in range(world.size + 1)]
        if uneven:
            # All but the last rank have a sample or none.
            ends = [min(r, 2) for r in range(world.size)] + [B]
        part = batch.slice(ends[world.rank], ends[world.rank + 1])
        tables.exchange.samples = tuple(ends[r + 1] - ends[r] for r in range(world.size))
        tables.set_lr(learning_rate(step))
        loss = loss_of(tables(part), part.labels, 1 / B)
        loss.backward()
        tables.step()
        losses.append(float(world.sum(loss.detach().double())))
    parts = [
        (part.shard, part.weight.clone(), {k: v.clone() for k, v in part.state.items()})
        for part in tables.local_shards
    ]
    return losses, parts, [tables.table(t) for t in range(len(layout.tables))]


def check(
    ranks: Ranks, name: str, kinds: Any, *, world: int, features: str = "one-hot",
    uneven: bool = False, sizes: Sequence[int] = SIZES, dim: int = DIM, steps: int = STEPS,
) -> list[Any]:  # fmt: skip
    schema = schema_of(sizes, features)
    layout, data = Layout.of(schema), batches(schema, steps)
    losses, (weights, sums) = plain(name, layout, dim, data)
    answers = ranks.run(sharded, name, layout, dim, kinds, data, uneven, world=world)
    for found, parts, tables in answers:
        torch.testing.assert_close(found, losses, rtol=0, atol=1e-6)
        for table, weight in zip(tables, weights, strict=True):
            torch.testing.assert_close(table, weight, rtol=0, atol=2e-5)
        for shard, weight, state in parts:
            rows = slice(shard.first_row, shard.last_row)
            cut, t = (rows, slice(shard.first_column, shard.last_column)), shard.table
            torch.testing.assert_close(weight, weights[t][cut], rtol=0, atol=2e-5)
            assert set(state) == (set() if sums is None else {"sum"})
            if sums is not None:
                mine = sums[t][cut] if sums[t].dim() == 2 else sums[t][rows]
                torch.testing.assert_close(state["sum"], mine, rtol=1e-4, atol=1e-7)
    return answers


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize(
    ("world", "features"),
    [(1, "one-hot"), (1, "mixed"), (2, "one-hot"), (2, "mixed"), (3, "one-hot"), (4, "lists")],
)
def test_losses_weights_and_state_are_those_of_plain_tables(
    ranks: Ranks, world: int, name: str, features: str
):
    kinds = ["table", "row", "replicate", "column", "row"]
    if name == "rowwise_adagrad":
        kinds[3] = "table"
    check(ranks, name, kinds, world=world, features=features)


@pytest.mark.parametrize("kind", ["table", "row", "replicate", "column"])
def test_one_kind_for_all(ranks: Ranks, kind: str):
    check(ranks, "adagrad", [kind] * len(SIZES), world=2, features="mixed", steps=10)


@pytest.mark.parametrize("features", ["one-hot", "lists", "mixed"])
def test_batches_of_different_sizes_and_empty_ones(ranks: Ranks, features: str):
    kinds = ["table", "row", "replicate", "column", "row"]
    check(ranks, "sgd", kinds, world=4, features=features, uneven=True, steps=10)


@pytest.mark.parametrize("name", ["adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("dim", [1, 6])
def test_dimensions_that_torchrec_does_not_have(ranks: Ranks, name: str, dim: int):
    kinds = ["table", "row", "replicate", "table" if name == "rowwise_adagrad" else "column", "row"]
    answers = check(ranks, name, kinds, world=2, dim=dim, steps=20)
    assert {part[1].shape[1] for answer in answers for part in answer[1]} <= {dim, 4, dim - 4}


def changed(world: World, name: str, dim: int) -> tuple[bool, bool, float]:
    kinds = ["table", "row", "replicate", "row", "row"]
    tables = made(world, layout_of(SIZES), dim, kinds, optimizer=Fused(name, EPS))
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(n, dim, generator=generator) for n in SIZES]
    sums = [torch.rand((n,) if name[:3] == "row" else (n, dim), generator=generator) for n in SIZES]

    def part_of(values: list[Tensor], shard: Shard) -> Tensor:
        rows = values[shard.table][shard.first_row : shard.last_row]
        return rows[:, shard.first_column : shard.last_column] if rows.dim() == 2 else rows

    for number, part in enumerate(tables.local_shards):
        part.weight.copy_(part_of(weights, part.shard))
        tables.load_state(number, "sum", part_of(sums, part.shard))
    same = all(
        torch.equal(part.weight, part_of(weights, part.shard)) for part in tables.local_shards
    )
    gaps = [part.state["sum"] - part_of(sums, part.shard) for part in tables.local_shards]
    same_tables = all(torch.equal(tables.table(t), weights[t]) for t in range(len(SIZES)))
    return same, same_tables, max(float(gap.abs().max()) for gap in gaps)


@pytest.mark.parametrize(("name", "dim"), [("adagrad", 8), ("adagrad", 6), ("rowwise_adagrad", 6)])
def test_what_is_loaded_is_read_again(ranks: Ranks, name: str, dim: int):
    for same, same_tables, gap in ranks.run(changed, name, dim, world=2):
        assert same
        assert same_tables
        assert gap <= 1e-6


def one(*ids: int) -> Batch:
    return Batch(torch.zeros(1, 0), torch.tensor([ids]), torch.zeros(1, 1))


def filled(world: World) -> list[Tensor]:
    tables = made(world, layout_of((9, 4)), 6, ["row", "table"], optimizer=Fused("sgd"))
    tables.exchange.samples = (1,) * world.size
    tables.fill(lambda values, t, first: values.copy_(torch.arange(values.numel()).view_as(values)))
    counted = [tables.table(t) for t in range(2)]
    tables.fill(constant(1.0))
    ones = tables(one(8, 3))
    tables.start_at_zero()
    assert tables.size_bytes == 13 * 6 * 4
    assert not tables(one(8, 3)).any()
    return [*counted, ones]


def test_tables_are_filled_row_by_row(ranks: Ranks):
    for first, second, ones in ranks.run(filled, world=2):
        assert torch.equal(first, torch.arange(54.0).view(9, 6))
        assert torch.equal(second, torch.arange(24.0).view(4, 6))
        assert torch.equal(ones, torch.ones(1, 2, 6))


def refused(world: World) -> list[str]:
    both, layout = ["table", "table"], layout_of((5, 3))
    said = []
    tables = made(world, layout, 4, both, optimizer=Fused("sgd"))
    single = Block(0, torch.tensor([[0, 1]]))
    lists = Block(0, torch.tensor([0, 1]), torch.tensor([0, 1, 2]))
    assert torch.equal(tables.vectors(single), tables.pooled(lists))
    assert torch.equal(tables.vectors(single), tables(one(0, 1)))
    shared = layout_of((5, 3), "mixed")
    several = made(world, shared, 4, both, optimizer=Fused("adagrad"))
    storage: Storage = "bf16"
    for call in (
        lambda: made(world, layout, 4, both, storage=storage, optimizer=Fused("sgd")),
        lambda: made(world, layout, 4, ["table", "column"], optimizer=Fused("rowwise_adagrad")),
        lambda: tables.vectors(lists),
        lambda: tables.pooled(lists, torch.ones(2)),
        lambda: tables(one(0, 3)),
        lambda: several.pooled(Block(0, torch.zeros(1, len(shared.groups[0]), dtype=torch.int64))),
    ):
        try:
            call()
        except (ConfigError, IdError) as error:
            said.append(f"{type(error).__name__} {error}")
    return said


def test_what_torchrec_cannot_do_is_said(ranks: Ranks):
    [said] = ranks.run(refused, world=1)
    expected = [
        "ConfigError tables.storage is bf16: ",
        "ConfigError T1: its columns are sharded, and TorchRec's rowwise_adagrad ",
        "ConfigError C0: the rows of a list are needed one by one",
        "ConfigError C0: with the engine torchrec learned weights of ids get no gradient",
        "IdError C1: id 3 is out of range",
        "ConfigError T1: single ids and lists of ids look it up",
    ]
    for message, start in zip(said, expected, strict=True):
        assert message.startswith(start)


def whole(world: World) -> list[tuple[int, int]]:
    """Return rows and columns of what a rank keeps of a table whose columns a plan has sharded."""
    layout, optimizer = layout_of((50,)), Fused("rowwise_adagrad")
    tables = made(world, layout, 8, ["column"], optimizer=optimizer, chosen=True)
    return [(kept.shard.rows, kept.shard.columns) for kept in tables.local_shards]


def test_what_a_plan_has_chosen_and_torchrec_cannot_do_stays_whole(ranks: Ranks):
    assert ranks.run(whole) == [[(50, 8)], []]


def test_optimizers_that_torchrec_does_not_have_are_refused():
    assert fused(OptimConfig(name="adagrad", eps=1e-6)) == Fused("adagrad", 1e-6)
    assert fused(OptimConfig(name="sgd")).eps == 1e-10
    with pytest.raises(ConfigError, match=r"optim\.name is adam.*choose sgd, adagrad or rowwise"):
        fused(OptimConfig(name="adam"))
    with pytest.raises(ConfigError, match=r"optim\.embedding_l2 is 0\.5"):
        fused(OptimConfig(embedding_l2=0.5))


def compressed(world: World, name: str, features: str) -> list[list[float]]:
    """Return the losses of plain tables, and of TorchRec's behind the same compression."""
    from dlrm.parallel.torchrec.collection import TorchRecCollection

    config = TablesConfig(compression=name, threshold=10)  # pyright: ignore[reportArgumentType]
    schema = schema_of((50, 5, 90), features)
    losses: list[list[float]] = []
    for alone in (True, False):
        torch.manual_seed(2)
        embeddings = config.build(schema, 8)
        size, rank = (1, 0) if alone else (world.size, world.rank)
        found: list[Any] = []
        if not alone:
            exchange = Exchange(world.rank, size, world.exchange)
            exchange.samples = (BATCH // size,) * size
            placed = plan(contents(embeddings, "sgd").tables, size, sharding="row")

            def engine(collection: Any, kinds: Any, shards: Any, exchange: Exchange) -> Any:
                return TorchRecCollection.of(
                    collection, kinds, shards, exchange, optimizer=Fused("sgd")
                )

            embeddings = parallelize(embeddings, placed, exchange, engine)
            found = collections_of(embeddings)
        materialize(embeddings)
        optimizer = build("sgd", parameter_groups(embeddings), 0.1)
        losses.append([])
        for batch in batches(schema, 10):
            part = batch.slice(BATCH * rank // size, BATCH * (rank + 1) // size)
            for each in found:
                each.set_lr(0.1)
            loss = loss_of(embeddings(part), part.labels, 1 / BATCH)
            optimizer.zero_grad()
            loss.backward()
            for each in found:
                each.step()
            for parameter in () if alone else embeddings.parameters():
                assert parameter.grad is not None
                parameter.grad = world.sum(parameter.grad)
            optimizer.step()
            whole = loss.detach().double()
            losses[-1].append(float(whole if alone else world.sum(whole)))
    return losses


@pytest.mark.parametrize(
    ("name", "features"),
    # Products of quotients and remainders of lists need rows one by one.
    [("qr", "one-hot"), ("hash", "one-hot"), ("hash", "mixed"), ("mixed_dim", "mixed")],
)
def test_compressed_tables_are_made_of_them(ranks: Ranks, name: str, features: str):
    for plain_losses, losses in ranks.run(compressed, name, features, world=2):
        torch.testing.assert_close(losses, plain_losses, rtol=0, atol=1e-6)
