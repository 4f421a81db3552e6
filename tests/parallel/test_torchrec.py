"""TorchRec's tables are the plain ones: losses, weights and state, whatever the ranks and kinds."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dlrm.errors import ConfigError, IdError, MissingExtraError
from dlrm.nn.embedding import EmbeddingCollection, constant
from dlrm.optim import OPTIMIZERS
from dlrm.optim.config import OptimConfig
from dlrm.parallel.exchange import Wire
from dlrm.parallel.fused import Fused, fused
from dlrm.parallel.probe import probe
from dlrm.parallel.shards import Shard
from dlrm.parallel.world import World
from parallel.ranks import Ranks

try:
    probe()
except (MissingExtraError, ConfigError) as error:
    pytest.skip(str(error), allow_module_level=True)

ROWS, DIM, STEPS, BATCH = (7, 60, 3, 40, 1), 8, 50, 24
EPS = 1e-3


def made(world: World, rows: Sequence[int], dim: int, kinds: Any, **options: Any) -> Any:
    """Return tables of these kinds, or as TorchRec's planner chooses: `auto`."""
    from dlrm.parallel.torchrec import TorchRecCollection

    W = world.size
    options = {"wire": Wire(world.rank, W, world.exchange), **options}
    if kinds == "auto":
        return TorchRecCollection(rows, dim, **options)
    shards = []
    for t, (kind, n) in enumerate(zip(kinds, rows, strict=True)):
        if kind == "column":
            ends = [dim * r // W for r in range(W + 1)]
            parts = [Shard(t, r, 0, n, ends[r], ends[r + 1]) for r in range(W)]
            shards += [part for part in parts if part.columns]
        else:
            # Of a row-wise table TorchRec chooses the ranges itself.
            shards.append(Shard(t, t % W, 0, n, 0, dim))
    return TorchRecCollection(rows, dim, kinds=kinds, shards=shards, **options)


def batches(rows: Sequence[int], multi: bool, steps: int, batch: int) -> list[Any]:
    generator = torch.Generator().manual_seed(5)
    T, found = len(rows), []
    for _ in range(steps):
        lengths = torch.ones(batch * T, dtype=torch.int64)
        if multi:
            lengths = torch.randint(0, 4, (batch * T,), generator=generator)
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        limits = torch.tensor(rows).repeat(batch).repeat_interleave(lengths)
        # Skewed, so that many ids meet in a batch.
        ids = (torch.rand(limits.shape[0], generator=generator) ** 2 * limits).long()
        labels = torch.randint(0, 2, (batch,), generator=generator).float()
        found.append((ids if multi else ids.view(batch, T), offsets if multi else None, labels))
    return found


def part_of(batch: Any, first: int, last: int, T: int) -> Any:
    ids, offsets, labels = batch
    if offsets is None:
        return ids[first:last], None, labels[first:last]
    offsets = offsets[first * T : last * T + 1]
    return ids[offsets[0] : offsets[-1]], offsets - offsets[0], labels[first:last]


def loss_of(vectors: Tensor, labels: Tensor, share: float) -> Tensor:
    flat = vectors.flatten(1)
    logits = (flat * torch.linspace(-0.5, 0.5, flat.shape[1])).sum(1) + (flat**2).mean(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return loss(logits, labels, reduction="sum") * share


def learning_rate(step: int) -> float:
    return 0.2 / (1 + step / 20)


def plain(name: str, rows: Sequence[int], dim: int, data: list[Any]) -> tuple[list[float], Any]:
    torch.manual_seed(1)
    tables = EmbeddingCollection(rows, dim)
    options: dict[str, Any] = {} if name == "sgd" else {"eps": EPS}
    optimizer = OPTIMIZERS[name](tables.parameters(), lr=1.0, **options)
    losses = []
    for step, (ids, offsets, labels) in enumerate(data):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        loss = loss_of(tables(ids, offsets), labels, 1 / len(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    sums = optimizer.state[tables.weight].get("sum")
    ends = list(torch.tensor(rows))
    found = [tables.table(t) for t in range(len(rows))]
    return losses, (found, None if sums is None else sums.split(ends))


def sharded(
    world: World,
    name: str,
    rows: Sequence[int],
    dim: int,
    kinds: Sequence[str] | str,
    data: list[Any],
    uneven: bool = False,
) -> tuple[list[float], list[Any], list[Tensor]]:
    torch.manual_seed(1)
    tables = made(world, rows, dim, kinds, optimizer=Fused(name, EPS))  # pyright: ignore[reportArgumentType]
    assert not list(tables.parameters())
    losses = []
    for step, batch in enumerate(data):
        B = len(batch[2])
        ends = [B * r // world.size for r in range(world.size + 1)]
        if uneven:
            # All but the last rank have a sample or none.
            ends = [min(r, 2) for r in range(world.size)] + [B]
        ids, offsets, labels = part_of(batch, ends[world.rank], ends[world.rank + 1], len(rows))
        tables.wire.samples = tuple(ends[r + 1] - ends[r] for r in range(world.size))
        tables.set_lr(learning_rate(step))
        loss = loss_of(tables(ids, offsets), labels, 1 / B)
        loss.backward()
        tables.step()
        losses.append(float(world.sum(loss.detach().double())))
    parts = [
        (part.range, part.weight.clone(), {k: v.clone() for k, v in part.state.items()})
        for part in tables.parts()
    ]
    return losses, parts, [tables.table(t) for t in range(len(rows))]


def check(
    ranks: Ranks, name: str, kinds: Any, *, world: int, multi: bool = False,
    uneven: bool = False, rows: Sequence[int] = ROWS, dim: int = DIM, steps: int = STEPS,
) -> list[Any]:  # fmt: skip
    data = batches(rows, multi, steps, BATCH)
    losses, (weights, sums) = plain(name, rows, dim, data)
    answers = ranks.run(sharded, name, rows, dim, kinds, data, uneven, world=world)
    for found, parts, tables in answers:
        torch.testing.assert_close(found, losses, rtol=0, atol=1e-6)
        for table, weight in zip(tables, weights, strict=True):
            torch.testing.assert_close(table, weight, rtol=0, atol=2e-5)
        for (t, first_row, last_row, left, right), weight, state in parts:
            cut = slice(first_row, last_row), slice(left, right)
            torch.testing.assert_close(weight, weights[t][cut], rtol=0, atol=2e-5)
            assert set(state) == (set() if sums is None else {"sum"})
            if sums is not None:
                mine = sums[t][cut] if sums[t].dim() == 2 else sums[t][cut[0]]
                torch.testing.assert_close(state["sum"], mine, rtol=1e-4, atol=1e-7)
    return answers


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize(
    ("world", "multi"), [(1, False), (1, True), (2, False), (2, True), (3, False), (4, True)]
)
def test_losses_weights_and_state_are_those_of_plain_tables(
    ranks: Ranks, world: int, name: str, multi: bool
):
    kinds = ["table", "row", "replicate", "column", "row"]
    if name == "rowwise_adagrad":
        kinds[3] = "table"
    check(ranks, name, kinds, world=world, multi=multi)


@pytest.mark.parametrize("kind", ["table", "row", "replicate", "column"])
def test_one_kind_for_all(ranks: Ranks, kind: str):
    check(ranks, "adagrad", [kind] * len(ROWS), world=2, multi=True, steps=10)


@pytest.mark.parametrize("name", ["sgd", "rowwise_adagrad"])
def test_torchrecs_own_planner(ranks: Ranks, name: str):
    check(ranks, name, "auto", world=2, steps=10)


@pytest.mark.parametrize("multi", [False, True])
def test_batches_of_different_sizes_and_empty_ones(ranks: Ranks, multi: bool):
    kinds = ["table", "row", "replicate", "column", "row"]
    check(ranks, "sgd", kinds, world=4, multi=multi, uneven=True, steps=10)


@pytest.mark.parametrize("name", ["adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("dim", [1, 6])
def test_dimensions_that_torchrec_does_not_have(ranks: Ranks, name: str, dim: int):
    kinds = ["table", "row", "replicate", "table" if name == "rowwise_adagrad" else "column", "row"]
    answers = check(ranks, name, kinds, world=2, dim=dim, steps=20)
    assert {part[1].shape[1] for answer in answers for part in answer[1]} <= {dim, 4, dim - 4}


def changed(world: World, name: str, dim: int) -> tuple[bool, bool, float]:
    kinds = ["table", "row", "replicate", "row", "row"]
    tables = made(world, ROWS, dim, kinds, optimizer=Fused(name, EPS))  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(n, dim, generator=generator) for n in ROWS]
    sums = [torch.rand((n,) if name[:3] == "row" else (n, dim), generator=generator) for n in ROWS]

    def part_of(values: list[Tensor], t: int, *ends: int) -> Tensor:
        rows = values[t][ends[0] : ends[1]]
        return rows[:, ends[2] : ends[3]] if rows.dim() == 2 else rows

    tables.load(lambda *ends: part_of(weights, *ends), lambda *ends: part_of(sums, *ends))
    same = all(torch.equal(part.weight, part_of(weights, *part.range)) for part in tables.parts())
    gaps = [part.state["sum"] - part_of(sums, *part.range) for part in tables.parts()]
    same_tables = all(torch.equal(tables.table(t), weights[t]) for t in range(len(ROWS)))
    return same, same_tables, max(float(gap.abs().max()) for gap in gaps)


@pytest.mark.parametrize(("name", "dim"), [("adagrad", 8), ("adagrad", 6), ("rowwise_adagrad", 6)])
def test_what_is_loaded_is_read_again(ranks: Ranks, name: str, dim: int):
    for same, same_tables, gap in ranks.run(changed, name, dim, world=2):
        assert same
        assert same_tables
        assert gap <= 1e-6


def filled(world: World) -> list[Tensor]:
    tables = made(world, (9, 4), 6, ["row", "table"], optimizer=Fused("sgd"))
    tables.wire.samples = (1,) * world.size
    tables.fill(lambda values, t, first: values.copy_(torch.arange(values.numel()).view_as(values)))
    counted = [tables.table(t) for t in range(2)]
    tables.fill(constant(1.0))
    ones = tables(torch.tensor([[8, 3]]))
    tables.start_at_zero()
    assert tables.size_bytes == 13 * 6 * 4
    assert not tables(torch.tensor([[8, 3]])).any()
    return [*counted, ones]


def test_tables_are_filled_row_by_row(ranks: Ranks):
    for first, second, ones in ranks.run(filled, world=2):
        assert torch.equal(first, torch.arange(54.0).view(9, 6))
        assert torch.equal(second, torch.arange(24.0).view(4, 6))
        assert torch.equal(ones, torch.ones(1, 2, 6))


def refused(world: World) -> list[str]:
    names = ["C1", "C2"]
    both, sgd = ["table", "table"], Fused("sgd")
    said = []
    tables = made(world, (5, 3), 4, both, names=names, optimizer=sgd)
    ids, offsets = torch.tensor([0, 1]), torch.tensor([0, 1, 2])
    assert torch.equal(tables.each(ids[None]), tables(ids, offsets))
    for call in (
        lambda: made(world, (5, 3), 4, both, storage="bf16", optimizer=sgd),
        lambda: made(
            world, (5, 3), 4, ["table", "column"], names=names, optimizer=Fused("rowwise_adagrad")
        ),
        lambda: tables.each(ids, offsets),
        lambda: tables(ids, offsets, torch.ones(2)),
        lambda: tables(torch.tensor([[0, 3]])),
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
        "ConfigError C2: its columns are sharded, and TorchRec's rowwise_adagrad ",
        "ConfigError C1: the rows of a bag are needed one by one",
        "ConfigError C1: with the engine torchrec learned weights of ids get no gradient",
        "IdError C2: id 3 is out of range",
    ]
    for message, start in zip(said, expected, strict=True):
        assert message.startswith(start)


def test_optimizers_that_torchrec_does_not_have_are_refused():
    assert fused(OptimConfig(name="adagrad", eps=1e-6)) == Fused("adagrad", 1e-6)
    assert fused(OptimConfig(name="sgd")).eps == 1e-10
    with pytest.raises(ConfigError, match=r"optim\.name is adam"):
        fused(OptimConfig(name="adam"))
    with pytest.raises(ConfigError, match=r"optim\.embedding_l2 is 0\.5"):
        fused(OptimConfig(embedding_l2=0.5))


def compressed(world: World, name: str) -> tuple[list[float], list[float]]:
    from dlrm.nn.embedding import made_by
    from dlrm.nn.tables import TablesConfig

    found: list[Any] = []

    def make(rows: Any, dim: int, names: Any = None, **options: Any) -> Any:
        kinds = [("row", "table")[t % 2] for t in range(len(rows))]
        tables = made(world, rows, dim, kinds, names=names, optimizer=Fused("sgd"), **options)
        tables.wire.samples = (BATCH // world.size,) * world.size
        found.append(tables)
        return tables

    config = TablesConfig(compression=name, threshold=10)  # pyright: ignore[reportArgumentType]
    rows, data = (50, 5, 90), batches((50, 5, 90), False, 10, BATCH)
    losses: list[list[float]] = []
    for maker in (EmbeddingCollection, make):
        torch.manual_seed(2)
        with made_by(maker):
            tables = config.build(rows, 8, ["C1", "C2", "C3"])
        alone = maker is EmbeddingCollection
        rank, size = (0, 1) if alone else (world.rank, world.size)
        parameters = list(tables.parameters())
        optimizer = OPTIMIZERS["sgd"](parameters, lr=0.1) if parameters else None
        losses.append([])
        for batch in data:
            first, last = BATCH * rank // size, BATCH * (rank + 1) // size
            ids, offsets, labels = part_of(batch, first, last, 3)
            for each in found:
                each.set_lr(0.1)
            loss = loss_of(tables(ids, offsets), labels, 1 / BATCH)
            if optimizer:
                optimizer.zero_grad()
            loss.backward()
            for each in found:
                each.step()
            if optimizer:
                for p in parameters if not alone else []:
                    assert p.grad is not None
                    p.grad = world.sum(p.grad)
                optimizer.step()
            whole = loss.detach().double()
            losses[-1].append(float(whole if alone else world.sum(whole)))
    return losses[0], losses[1]


@pytest.mark.parametrize("name", ["qr", "hash", "mixed_dim"])
def test_compressed_tables_are_made_of_them(ranks: Ranks, name: str):
    for plain_losses, losses in ranks.run(compressed, name, world=2):
        torch.testing.assert_close(losses, plain_losses, rtol=0, atol=1e-6)
