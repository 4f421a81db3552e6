"""What an operator has to do on any machine: calls, products, bytes in order, rows at random.

What is counted is the least that is to be done. What our kernels do beyond it is kept apart, as
passes: it takes time, which the cost model has to know, but it brings nobody nearer to a limit.

flops   multiplications and additions
bytes   that must be moved if every input is read once and every output written once
lines   of 64 bytes, as memory moves them: a row of 40 bytes moves one or two
"""

from dataclasses import dataclass, field, fields

from dlrm.bench.batches import Ids
from dlrm.nn.precision import ComputeDtype

LINE_BYTES = 64
VECTOR = 16
"""Numbers of float32 in the widest registers."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product (m, k) by (k, n)."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n

    @property
    def padded_flops(self) -> int:
        """FLOP of kernels that compute in blocks: sizes rounded up to whole vectors."""
        k, n = (-(-size // VECTOR) * VECTOR for size in (self.k, self.n))
        return 2 * self.m * k * n


@dataclass(frozen=True, slots=True)
class Random:
    """Rows that are read at random places, and perhaps written back."""

    accesses: float
    """Rows that are read."""
    row_bytes: int
    tables: tuple[int, ...]
    """Rows of the tables that they lie in; each table is read as often as any other."""
    ids: Ids = "uniform"
    """How likely each row of a table is, see `dlrm.bench.batches.draw_ids`."""
    written: bool = False
    """Whether they are written back."""

    @property
    def lines(self) -> float:
        """Cache lines moved."""
        return self.accesses * -(-self.row_bytes // LINE_BYTES) * (2 if self.written else 1)

    @property
    def bytes(self) -> float:
        """Bytes asked for."""
        return self.accesses * self.row_bytes * (2 if self.written else 1)

    @property
    def tables_bytes(self) -> int:
        """Size of the tables."""
        return sum(self.tables) * self.row_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """What an operator has to do in one run."""

    calls: float = 1
    """Calls of compiled kernels and torch's operators."""
    products: tuple[Product, ...] = ()
    dtype: ComputeDtype = "fp32"
    """Number format of the products."""
    scalar_flops: float = 0.0
    """Operations beside the products."""
    stream_bytes: float = 0.0
    """Read and written in order."""
    random: tuple[Random, ...] = field(default=())
    passes_bytes: float = 0.0
    """Bytes of results that our kernels write in between, to read them again."""
    passes: tuple[Random, ...] = field(default=())
    """Rows that they visit more often than they must."""

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return sum(product.flops for product in self.products) + self.scalar_flops

    @property
    def bytes(self) -> float:
        """Bytes moved."""
        return self.stream_bytes + sum(lookups.bytes for lookups in self.random)

    @property
    def lines(self) -> float:
        """Cache lines moved."""
        return self.stream_bytes / LINE_BYTES + sum(lookups.lines for lookups in self.random)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.calls + other.calls,
            self.products + other.products,
            self.dtype if self.products else other.dtype,
            self.scalar_flops + other.scalar_flops,
            self.stream_bytes + other.stream_bytes,
            self.random + other.random,
            self.passes_bytes + other.passes_bytes,
            self.passes + other.passes,
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds of an operator, by what they are spent on."""

    calls_s: float = 0.0
    """Seconds of starting kernels."""
    compute_s: float = 0.0
    """Seconds of arithmetic."""
    stream_s: float = 0.0
    """Seconds of bytes in order."""
    latency_s: float = 0.0
    """Seconds of waiting for rows at random places."""
    transfer_s: float = 0.0
    """Seconds of moving such rows, beyond the first line of each."""

    @property
    def total_s(self) -> float:
        """Where nothing overlaps."""
        return sum(getattr(self, term.name) for term in fields(self))

    @property
    def bound(self) -> str:
        """What takes the longest: compute, memory bandwidth, memory latency or calls."""
        parts = {
            "compute": self.compute_s,
            "memory bandwidth": self.stream_s + self.transfer_s,
            "memory latency": self.latency_s,
            "calls": self.calls_s,
        }
        return max(parts, key=parts.__getitem__)

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> "Terms":
        """Return every term times a factor."""
        return Terms(*(factor * getattr(self, term.name) for term in fields(self)))
