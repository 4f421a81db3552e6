"""A plan for tables and a world: what is cut, what is copied, and where everything goes.

Nothing here knows tensors: a plan for a thousand tables and devices is made on a laptop.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from dlrm.errors import PlanError, unknown
from dlrm.planning.balance import Balance, Piece
from dlrm.planning.shards import Kind, Plan, Shard, Table, size_bytes, work
from dlrm.terminal import human_bytes

__all__ = ["SHARDINGS", "Kind", "Plan", "Shard", "Sharding", "Table", "plan"]

Sharding = Kind | Literal["auto"]

SHARDINGS: tuple[Sharding, ...] = ("auto", "table", "row", "column", "replicate")
WIDE, LEAST_COLUMNS = 64, 32
"""Columns from which on `auto` cuts a table by them, and those that a part keeps at least."""
LIMITS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
"""Shares of a rank's mean load that `auto` lets a table weigh uncut, tried in turn."""
BALANCED = 1.15
"""Largest load over mean that needs no further cuts."""
HARD_TO_PLACE = 0.7
"""Share of a device's memory from which a table is cut."""

FEW_RANKS = 16
"""Rows that are cut go to all ranks alike where there are at most so many."""


class _Cut(NamedTuple):
    """How a table is spread, and over how many ranks."""

    kind: Kind
    parts: int


def plan(
    tables: Sequence[Table],
    world: int,
    *,
    memory_bytes: int | None = None,
    sharding: Sharding = "auto",
    batch_size: int = 2048,
    replicate_bytes: int = 1 << 20,
) -> Plan:
    """Spread tables over ranks; equal input gives equal plans.

    `auto` copies tables whose gradient is no longer than what a step would exchange for them, cuts
    those that weigh more than a rank's share of all memory or work, and places the rest whole. What
    is too large is cut by rows; by columns where rows are wide and only the work is too much, or a
    sample has several ids, whose sums from all parts of the rows would have to travel.

    Args:
        tables: Tables of the whole model.
        world: W, the number of ranks.
        memory_bytes: What a rank has for tables and their optimizer state; None for any size.
        sharding: A kind for every table that it is possible for, else `table`: `row` needs a row a
            rank, `column` two columns, and `replicate` updates that are not rounded at random.
        batch_size: Samples of a step over all ranks, to tell tiny tables.
        replicate_bytes: Gradients of all tables that `auto` copies, at most.

    Raises:
        PlanError: The tables do not fit; names the sums.
        ConfigError: There is no such sharding.

    """
    if sharding not in SHARDINGS:
        raise unknown("sharding", sharding, SHARDINGS)
    if world < 1:
        raise PlanError(f"world is {world}: at least 1 process is needed")
    need = sum(table.size_bytes for table in tables)
    if memory_bytes is not None and need > world * memory_bytes:
        raise PlanError(
            f"tables need {human_bytes(need)} with optimizer state, {_devices(world, memory_bytes)}"
            f" {'have' if world > 1 else 'has'} {human_bytes(world * memory_bytes)}"
        )
    if sharding == "auto":
        candidate = _auto(tables, world, memory_bytes, batch_size, replicate_bytes)
    else:
        candidate = _place(
            tables, world, memory_bytes, [_forced(t, world, sharding) for t in tables]
        )
    if candidate is None:
        raise _no_room(tables, world, memory_bytes or 0, sharding)
    return candidate


def _forced(table: Table, world: int, kind: Kind) -> _Cut:
    if world == 1:
        return _Cut("table", 1)
    match kind:
        case "row" if table.num_embeddings >= world:
            return _Cut("row", world)
        case "column" if (parts := _equal_columns(table, world, world)) > 1:
            return _Cut("column", parts)
        case "replicate" if table.may_replicate:
            return _Cut("replicate", world)
    return _Cut("table", 1)


def _auto(
    tables: Sequence[Table], world: int, capacity: int | None, batch_size: int, most_copied: int
) -> Plan | None:
    for copied in (_tiny(tables, world, batch_size, most_copied), set[int]()):
        best: Plan | None = None
        for limit in LIMITS if world > 1 else LIMITS[:1]:
            candidate = _place(
                tables, world, capacity, _cuts(tables, world, limit, copied, capacity)
            )
            # A few percent are not worth more cuts.
            if candidate is not None and (
                best is None or _uneven(candidate) < 0.97 * _uneven(best)
            ):
                best = candidate
            if best is not None and _uneven(best) <= BALANCED:
                break
        if best is not None:
            return best
    return _filled(tables, world, capacity or 0)


def _uneven(candidate: Plan) -> float:
    return max(candidate.memory_imbalance, candidate.work_imbalance)


def _tiny(tables: Sequence[Table], world: int, batch_size: int, most_bytes: int) -> set[int]:
    """Return the tables to copy: their summed gradient costs less than exchanging their vectors."""
    copied, left = set[int](), most_bytes
    if world == 1:
        return copied
    for t in sorted(
        range(len(tables)), key=lambda t: (tables[t].num_embeddings * tables[t].dim, t)
    ):
        table = tables[t]
        gradient = table.num_embeddings * (table.dim + 1)
        left -= 4 * gradient
        if left < 0:
            break
        if table.may_replicate and gradient * world <= batch_size * table.dim * table.features:
            copied.add(t)
    return copied


def _cuts(
    tables: Sequence[Table], world: int, limit: float, copied: set[int], capacity: int | None
) -> list[_Cut]:
    """Return how each table is spread, where none uncut may weigh more than `limit` of a share."""
    rest = [table for t, table in enumerate(tables) if t not in copied]
    memory_share = sum(table.size_bytes for table in rest) / world or 1.0
    work_share = sum(table.work for table in rest) / world or 1.0
    cuts: list[_Cut] = []
    for t, table in enumerate(tables):
        memory, busy = table.size_bytes / memory_share, table.work / work_share
        tight = capacity is not None and table.size_bytes > HARD_TO_PLACE * capacity
        most = min(world, table.dim // LEAST_COLUMNS) if table.dim >= WIDE else 1
        by_rows = min(world, table.num_embeddings)
        parts = max(2, int(-(-max(memory, busy) // limit)))
        if capacity is not None:
            parts = max(parts, int(-(-table.size_bytes // (HARD_TO_PLACE * capacity or 1))))
        by_columns = _equal_columns(table, parts, most)
        if t in copied:
            cuts.append(_Cut("replicate", world))
        elif world == 1 or (max(memory, busy) <= limit and not tight):
            cuts.append(_Cut("table", 1))
        elif parts <= by_columns and (memory <= limit or table.pooling > 1):
            cuts.append(_Cut("column", by_columns))
        elif by_rows > 1:
            everywhere = world <= FEW_RANKS or 2 * parts > by_rows
            cuts.append(_Cut("row", by_rows if everywhere else parts))
        else:
            cuts.append(_Cut("column", by_columns) if by_columns > 1 else _Cut("table", 1))
    return cuts


def _equal_columns(table: Table, least: int, most: int) -> int:
    """Return how many equal parts a table's columns make: `least` if possible, `most` at most.

    Equal, because optimizers that keep one number a row ask all of its parts, in one order.
    """
    divisors = [n for n in range(1, most + 1) if table.dim % n == 0]
    return next((n for n in divisors if n >= least), divisors[-1])


def _place(
    tables: Sequence[Table], world: int, capacity: int | None, cuts: Sequence[_Cut]
) -> Plan | None:
    """Return the plan with these cuts; None where no room is copied for them."""
    memory, busy = [0] * world, [0.0] * world
    held: list[dict[int, int]] = [{} for _ in tables]
    loose: list[tuple[Piece, int]] = []
    for t, (table, cut) in enumerate(zip(tables, cuts, strict=True)):
        if cut.kind == "replicate":
            for rank in range(world):
                held[t][rank] = table.num_embeddings
                memory[rank] += table.size_bytes
                busy[rank] += table.work / world
            continue
        for part, extent in enumerate(_equal(_extent(table, cut.kind), cut.parts, turn=t)):
            shard = _shard(table, cut.kind, t, -1, 0, extent)
            piece = Piece(size_bytes(table, shard), work(table, shard), t)
            if cut.parts < world:
                loose.append((piece, extent))
                continue
            held[t][part] = extent
            memory[part] += piece.size_bytes
            busy[part] += piece.work
    if capacity is not None and max(memory) > capacity:
        return None
    pieces = [piece for piece, _ in loose]
    ranks = Balance(memory, busy, capacity).assign(pieces)
    if ranks is None:
        ranks = Balance(memory, busy, capacity, by_memory=True).assign(pieces)
    if ranks is None:
        return None
    for (piece, extent), rank in zip(loose, ranks, strict=True):
        held[piece.table][rank] = extent
    return _laid_out(tables, world, [cut.kind for cut in cuts], held)


def _filled(tables: Sequence[Table], world: int, capacity: int) -> Plan | None:
    """Fill one rank after another to the last row: only parts of a row are left unused."""
    held: list[dict[int, int]] = [{} for _ in tables]
    rank, left = 0, capacity
    for t in sorted(range(len(tables)), key=lambda t: (-tables[t].row_bytes, t)):
        table, remain = tables[t], tables[t].num_embeddings
        while remain:
            fits = min(remain, left // table.row_bytes if table.row_bytes else remain)
            if fits:
                held[t][rank] = fits
                remain, left = remain - fits, left - fits * table.row_bytes
            if remain:
                rank, left = rank + 1, capacity
            if rank == world:
                return None
    kinds: list[Kind] = ["table" if len(ranks) == 1 else "row" for ranks in held]
    return _laid_out(tables, world, kinds, held)


def _laid_out(
    tables: Sequence[Table], world: int, kinds: Sequence[Kind], held: Sequence[dict[int, int]]
) -> Plan:
    """Return the plan in which each rank holds so many rows, or columns, of each table."""
    shards: list[Shard] = []
    for t, (table, kind) in enumerate(zip(tables, kinds, strict=True)):
        first = 0
        for rank in sorted(held[t]):
            shards.append(_shard(table, kind, t, rank, first, held[t][rank]))
            first += held[t][rank] if kind != "replicate" else 0
    return Plan(world, tuple(tables), tuple(kinds), tuple(shards))


def _extent(table: Table, kind: Kind) -> int:
    """Return what is cut: rows, or columns."""
    return table.dim if kind == "column" else table.num_embeddings


def _shard(table: Table, kind: Kind, t: int, rank: int, first: int, extent: int) -> Shard:
    if kind == "column":
        return Shard(t, rank, 0, table.num_embeddings, first, first + extent)
    return Shard(t, rank, first, first + extent, 0, table.dim)


def _equal(total: int, parts: int, turn: int) -> list[int]:
    """Return the sizes of equal parts; what is left over goes to other parts with each `turn`."""
    ends = [(total * part + turn % parts) // parts for part in range(parts + 1)]
    return [last - first for first, last in pairwise(ends)]


def _devices(world: int, capacity: int) -> str:
    return f"{world} device{'s' if world > 1 else ''} of {human_bytes(capacity)}"


def _no_room(tables: Sequence[Table], world: int, capacity: int, sharding: Sharding) -> PlanError:
    message = f"the tables do not fit {_devices(world, capacity)} with sharding {sharding}"
    largest = max(tables, key=lambda table: table.size_bytes)
    if sharding == "auto":
        return PlanError(f"{message}: too much would be left over beside whole rows")
    if sharding == "replicate":
        total = sum(table.size_bytes for table in tables)
        message += f": each would hold all {human_bytes(total)} of them"
    elif sharding == "table" and largest.size_bytes > capacity:
        message += f": {largest.name} alone takes {human_bytes(largest.size_bytes)} with its state"
    return PlanError(f"{message}; sharding auto cuts what is too large")
