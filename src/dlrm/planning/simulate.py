"""How long a step takes on W devices: the work of each, a plan and a network.

    ids                 to the ranks that keep their rows
    lookup              of what has come; the vectors leave when the slowest rank is done
    vectors, bottom     bottom MLP while vectors are on their way
    top                 interaction, top MLP and loss, forwards and backwards
    vectors, bottom     gradients go the way back meanwhile
    sums                of gradients of dense parameters and of copied tables
    update              of both; the next step begins when the slowest rank is done

Where a device can send and compute at once, an exchange takes only what is left of it after the
bottom MLP. No tensor is involved.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache

from dlrm.nn.tables import tables_of
from dlrm.planning import operators
from dlrm.planning.costs import OTHER, Device, Terms
from dlrm.planning.network import Network
from dlrm.planning.parts import BOTTOM, LOOKUP, UPDATE, Part, parts, update_kind
from dlrm.planning.planned import Planned
from dlrm.planning.shards import Kind, Plan, Shard
from dlrm.planning.stages import DENSE_UPDATE
from dlrm.planning.traffic import BUCKET_BYTES, FIRST_BUCKET_BYTES, Traffic
from dlrm.planning.work import NUMBER_BYTES, Ids, Shape, Work

FORWARD_SHARE = 1 / 3
"""Share of the products of a layer that are forwards: one of three."""
EXCHANGES: dict[Kind, int] = {"table": 1, "column": 1, "row": 2, "replicate": 0}
"""Exchanges before the lookup: ids, and for rows how many there are."""
TOP, ROUTING = "top", "routing"
"""Groups of what a device computes beside bottom MLP, tables and dense update."""
DIGITS = 3
"""Digits of the rows of a shard that tell it from others: what lies closer takes as long."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Equal devices that train together."""

    device: Device
    network: Network
    overlap: bool = True
    """Whether they send and compute at once."""
    slowdown: float = 1.0
    """Times as long as what they compute takes, where they share cores."""
    ids: Ids = "zipf"
    """How likely each row of a table is."""


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of a step by its parts, which follow one another."""

    bottom_s: float
    top_s: float
    lookup_s: float
    """Seconds of lookups of the mean rank."""
    update_s: float
    """Seconds of updates of the mean rank."""
    routing_s: float
    ids_s: float
    vectors_s: float
    """Exchanges of vectors and of their gradients that the bottom MLP does not hide."""
    sums_s: float
    """All-reduces of gradients that no computation hides."""
    waiting_s: float
    """Seconds that the mean rank waits for the slowest one."""

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of a step on the busiest device that arithmetic, memory and links ask for."""

    compute_s: float
    memory_s: float
    exchange_s: float

    @property
    def least_s(self) -> float:
        """Seconds if compute, memory and exchanges all overlap."""
        return max(self.compute_s, self.memory_s, self.exchange_s)


def step_of(run: Planned, devices: Devices) -> Step | None:
    """Return the time of a step of a planned run; None where its tables do not fit."""
    if run.plan is None or run.traffic is None:
        return None
    plan, world = run.plan, run.plan.world
    groups, tables = _computed(run, plan, devices)
    group_s = {name: devices.slowdown * terms.total_s for name, terms in groups.items()}
    lookups, updates = (
        [devices.slowdown * terms.total_s for terms in ranks] for ranks in zip(*tables, strict=True)
    )
    ids, vectors, sums = _exchanged(run, plan, run.traffic, devices.network)
    forwards, backwards = vectors, vectors + sums
    if devices.overlap:
        forwards = max(0.0, forwards - FORWARD_SHARE * group_s[BOTTOM])
        backwards = max(0.0, backwards - (1 - FORWARD_SHARE) * group_s[BOTTOM])
    summed = backwards * sums / (vectors + sums) if vectors + sums else 0.0
    return Step(
        bottom_s=group_s[BOTTOM],
        top_s=group_s[TOP],
        lookup_s=sum(lookups) / world,
        update_s=sum(updates) / world + group_s[DENSE_UPDATE],
        routing_s=group_s[ROUTING],
        ids_s=ids,
        vectors_s=forwards + backwards - summed,
        sums_s=summed,
        waiting_s=sum(max(ranks) - sum(ranks) / world for ranks in (lookups, updates)),
    )


def bounds(run: Planned, devices: Devices) -> Bounds | None:
    """Return what each limit asks for in a step of a run; None where its tables do not fit."""
    if run.plan is None or run.traffic is None:
        return None
    groups, ranks = _computed(run, run.plan, devices)
    busiest = max((a + b for a, b in ranks), key=lambda terms: terms.total_s)
    terms = sum(groups.values(), busiest)
    ids, vectors, sums = _exchanged(run, run.plan, run.traffic, devices.network)
    return Bounds(terms.compute_s + terms.calls_s, terms.memory_s, ids + 2 * vectors + sums)


def _exchanged(
    run: Planned, plan: Plan, sent: Traffic, network: Network
) -> tuple[float, float, float]:
    """Return the seconds of ids, of vectors one way, and of sums, where nothing hides them."""
    # Of each kind by itself, one after the other: their latencies add up, not so their bytes.
    exchanges = [EXCHANGES[kind] for kind in _sharded(plan)]
    world, batch_size = plan.world, run.config.loader.batch_size
    share = (world - 1) / world
    ids_bytes = batch_size * max((*sent.ids_sent, *(share * ids for ids in sent.ids)))
    there = batch_size * max((*sent.vectors_sent, *sent.gradients_sent))
    return (
        _repeated(network, ids_bytes, world, sum(exchanges)),
        _repeated(network, there, world, len(exchanges)),
        _sums(plan, network, run.contents.dense_bytes),
    )


def step_parts(run: Planned, ids: Ids = "zipf") -> list[Part]:
    """Return the parts of a step of one device's own samples, on a device that has all tables."""
    samples = -(-run.config.loader.batch_size // run.world.size)
    features = max(1, len(run.data.schema.features))
    return parts(run.config, run.data.schema, Shape(samples, run.data.lookups / features, ids))


def _computed(
    run: Planned, plan: Plan, devices: Devices
) -> tuple[dict[str, Terms], list[tuple[Terms, Terms]]]:
    """Return what one device computes in a step; and on each rank its lookups and its updates."""
    device = devices.device
    groups: dict[str, Terms] = dict.fromkeys((BOTTOM, DENSE_UPDATE, ROUTING), Terms())
    groups[TOP] = device.terms(OTHER, Work(calls=1))
    for part in step_parts(run, devices.ids):
        if part.operator != UPDATE and part.kind != LOOKUP:
            group = part.operator if part.operator in groups else TOP
            groups[group] += device.terms(part.kind, part.work)
    samples = -(-run.config.loader.batch_size // plan.world)
    for kind in _sharded(plan):
        tables = [t for t, other in zip(plan.tables, plan.kinds, strict=True) if other == kind]
        work = operators.routing(samples * sum(table.work for table in tables))
        groups[ROUTING] += device.terms(ROUTING, work)
    return groups, _ranks(run, plan, devices)


def _ranks(run: Planned, plan: Plan, devices: Devices) -> list[tuple[Terms, Terms]]:
    """Return what lookups and updates take on each rank."""
    optimizer = run.config.optim.name
    batch_size, storage = run.config.loader.batch_size, tables_of(run.config.model).storage
    kind, number_bytes = update_kind(optimizer, [storage]), NUMBER_BYTES[storage]

    @cache
    def terms(held: tuple[tuple[int, int, int], ...]) -> tuple[Terms, Terms]:
        shards = [Shard(t, 0, 0, rows, 0, columns) for t, rows, columns in held]
        looked_up = sum(batch_size * plan.shard_lookups(shard) for shard in shards)
        if not looked_up:
            return Terms(), Terms()
        numbers = sum(batch_size * plan.shard_lookups(s) * s.columns for s in shards)
        vectors = sum(batch_size * _vectors(plan, shard) for shard in shards)
        # A feature counts as a table: each is looked up.
        tables = tuple(s.rows for s in shards for _ in range(plan.tables[s.table].features))
        shape = Shape(vectors / len(tables), max(1.0, looked_up / vectors), devices.ids)
        dim = numbers / looked_up
        lookup = operators.lookup(tables, dim, number_bytes, shape)
        update = operators.update(
            tables, dim, number_bytes, shape, optimizer, split=storage == "split", near=True
        )
        return devices.device.terms(LOOKUP, lookup), devices.device.terms(kind, update)

    held: list[list[tuple[int, int, int]]] = [[] for _ in range(plan.world)]
    for shard in plan.shards:
        rows = float(f"{shard.rows:.{DIGITS}g}") if plan.world > 1 else shard.rows
        held[shard.rank].append((shard.table, max(1, int(rows)), shard.columns))
    return [terms(tuple(shards)) for shards in held]


def _vectors(plan: Plan, shard: Shard) -> float:
    """Return the vectors that a sample of the whole batch gets from a shard, at most one a list."""
    table = plan.tables[shard.table]
    share = plan.shard_lookups(shard) / table.pooling if table.pooling else 0.0
    return table.features * share


def _sharded(plan: Plan) -> list[Kind]:
    """Return the kinds of tables of which something is exchanged before the update."""
    return [kind for kind in EXCHANGES if EXCHANGES[kind] and kind in plan.kinds and plan.world > 1]


def _repeated(network: Network, total_bytes: float, world: int, times: int) -> float:
    return times * network.exchange_s(total_bytes / times, world) if times else 0.0


def _sums(plan: Plan, network: Network, dense_bytes: int) -> float:
    # The loss of the whole batch.
    pieces: Counter[float] = Counter([16])
    if dense_bytes:
        whole, rest = divmod(max(0, dense_bytes - FIRST_BUCKET_BYTES), BUCKET_BYTES)
        pieces[min(dense_bytes, FIRST_BUCKET_BYTES)] += 1
        pieces += Counter({BUCKET_BYTES: whole, rest: int(rest > 0)})
    copied = sum(
        4 * table.num_embeddings * (table.dim + 1)
        for table, kind in zip(plan.tables, plan.kinds, strict=True)
        if kind == "replicate"
    )
    pieces[copied] += int(copied > 0)
    return sum(count * network.sum_s(size, plan.world) for size, count in pieces.items() if count)
