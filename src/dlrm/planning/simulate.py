"""How long a step takes on W devices: from its operators on one of them, a plan and a network.

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

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from dlrm.planning.network import Network
from dlrm.planning.shards import Kind, Plan
from dlrm.planning.traffic import BUCKET_BYTES, FIRST_BUCKET_BYTES, Traffic

FORWARD_SHARE = 1 / 3
"""Of the products of a layer, those forwards: one of three."""
EXCHANGES: dict[Kind, int] = {"table": 1, "column": 1, "row": 2, "replicate": 0}
"""Exchanges before the lookup: ids, and for rows how many there are."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds by amount: straight between the points that were measured, and beyond them."""

    points: tuple[tuple[float, float], ...]
    """(amount, seconds), both rising. One point: seconds in proportion to the amount."""

    def __call__(self, amount: float) -> float:
        """Return the seconds of an amount; 0 for none."""
        if amount <= 0:
            return 0.0
        points = self.points
        if len(points) == 1:
            return points[0][1] * amount / points[0][0]
        at = bisect_right([x for x, _ in points], amount)
        (x0, y0), (x1, y1) = points[max(0, min(at, len(points) - 1) - 1) :][:2]
        # Nothing is done in no time: what is less than was measured has its share at least.
        return max(y0 + (amount - x0) * (y1 - y0) / (x1 - x0), min(y0 * amount / x0, y0))


@dataclass(frozen=True, slots=True)
class Rows:
    """Seconds by looked-up rows."""

    curve: Curve
    """By rows of `dim` numbers."""
    dim: int
    row_share: float = 0.0
    """Of the seconds of a row, the share that does not depend on its length."""

    def __call__(self, rows: float, numbers: float) -> float:
        """Return the seconds of so many rows, and so many numbers in all of them."""
        if not rows:
            return 0.0
        longer = numbers / rows / self.dim
        return self.curve(rows) * (self.row_share + (1 - self.row_share) * longer)


@dataclass(frozen=True, slots=True)
class Operators:
    """Seconds of the parts of a step on one device."""

    bottom: Curve
    """By samples: what is computed while vectors are on their way, forwards and backwards."""
    top: Curve
    """By samples: everything else that is no table, forwards and backwards."""
    dense_update_s: float
    lookup: Rows
    update: Rows
    """Of the gradient of looked-up rows, plan and applied."""
    routing: dict[Kind, Rows] = field(default_factory=dict)
    """Kind -> what the ids of own samples cost to be put in order for others, and their vectors."""


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of a step by its parts, which follow one another."""

    bottom_s: float
    top_s: float
    lookup_s: float
    """Of the mean rank."""
    update_s: float
    """Of the mean rank."""
    routing_s: float
    ids_s: float
    vectors_s: float
    """There, and gradients back: what the bottom MLP does not hide."""
    sums_s: float
    """As much of it as nothing hides."""
    waiting_s: float
    """For the slowest rank, of the mean one."""

    @property
    def total_s(self) -> float:
        """Of the step."""
        return sum(asdict(self).values())


def simulate(
    operators: Operators,
    plan: Plan,
    sent: Traffic,
    network: Network,
    *,
    batch_size: int,
    dense_bytes: int,
    overlap: bool = True,
    slowdown: float = 1.0,
) -> Step:
    """Return the time of a step.

    Args:
        operators: Of each device.
        plan: Where the tables are on W devices.
        sent: What that makes them send.
        network: Between them.
        batch_size: Samples over all devices.
        dense_bytes: Of the parameters that are no tables.
        overlap: Whether a device can send and compute at once.
        slowdown: Of all that is computed, e.g. 2 where two devices share a core.

    """
    world, own = plan.world, -(-batch_size // plan.world)
    bottom, top = (slowdown * part(own) for part in (operators.bottom, operators.top))
    loads = _loads(plan, batch_size)
    lookups = [slowdown * operators.lookup(*load) for load in loads]
    updates = [slowdown * operators.update(*load) for load in loads]
    dense_update = slowdown * operators.dense_update_s
    waiting = sum(max(each) - sum(each) / world for each in (lookups, updates))
    kinds = set(plan.kinds) if world > 1 else set[Kind]()
    routing = sum(
        slowdown * operators.routing[kind](*_own(plan, kind, own))
        for kind in kinds & set(operators.routing)
    )
    # Of each kind by itself, one after the other: their latencies add up, not so their bytes.
    exchanges = [EXCHANGES[kind] for kind in kinds if EXCHANGES[kind]]
    share = (world - 1) / world
    ids_bytes = batch_size * max((*sent.ids_sent, *(share * each for each in sent.ids)))
    there = batch_size * max((*sent.vectors_sent, *sent.gradients_sent))
    ids = _repeated(network, ids_bytes, world, sum(exchanges))
    vectors = _repeated(network, there, world, len(exchanges))
    sums = _sums(plan, network, dense_bytes)
    forwards, backwards = vectors, vectors + sums
    if overlap:
        forwards = max(0.0, forwards - FORWARD_SHARE * bottom)
        backwards = max(0.0, backwards - (1 - FORWARD_SHARE) * bottom)
    summed = backwards * sums / (vectors + sums) if vectors + sums else 0.0
    return Step(
        bottom_s=bottom,
        top_s=top,
        lookup_s=sum(lookups) / world,
        update_s=sum(updates) / world + dense_update,
        routing_s=routing,
        ids_s=ids,
        vectors_s=forwards + backwards - summed,
        sums_s=summed,
        waiting_s=waiting,
    )


def _loads(plan: Plan, batch_size: int) -> list[tuple[float, float]]:
    """Return how many rows a step looks up on each rank, and how many numbers they have."""
    rows, numbers = [0.0] * plan.world, [0.0] * plan.world
    for shard in plan.shards:
        lookups = batch_size * plan.shard_lookups(shard)
        rows[shard.rank] += lookups
        numbers[shard.rank] += lookups * shard.columns
    return list(zip(rows, numbers, strict=True))


def _own(plan: Plan, kind: Kind, own: int) -> tuple[float, float]:
    """Return the ids that the samples of a rank have of tables of a kind, and their numbers."""
    of = [table for table, each in zip(plan.tables, plan.kinds, strict=True) if each == kind]
    return own * sum(t.pooling for t in of), own * sum(t.work for t in of)


def _repeated(network: Network, total_bytes: float, world: int, times: int) -> float:
    return times * network.exchange_s(total_bytes / times, world) if times else 0.0


def _sums(plan: Plan, network: Network, dense_bytes: int) -> float:
    world = plan.world
    pieces: list[float] = []
    if dense_bytes:
        pieces.append(min(dense_bytes, FIRST_BUCKET_BYTES))
        whole, rest = divmod(max(0, dense_bytes - FIRST_BUCKET_BYTES), BUCKET_BYTES)
        pieces += [BUCKET_BYTES] * whole + ([rest] if rest else [])
    copied = [
        4 * table.num_embeddings * (table.dim + 1)
        for table, kind in zip(plan.tables, plan.kinds, strict=True)
        if kind == "replicate"
    ]
    if copied and world > 1:
        pieces.append(sum(copied))
    # The loss of the whole batch.
    pieces.append(16)
    return sum(network.sum_s(piece, world) for piece in pieces)


def rising(points: Sequence[tuple[float, float]]) -> Curve:
    """Return the curve of what was measured; noise never makes more take less."""
    smooth: list[tuple[float, float]] = []
    for amount, seconds in sorted(points):
        least = smooth[-1][1] if smooth else 1e-9
        smooth.append((amount, max(seconds, least)))
    return Curve(tuple(smooth))
