"""What an operator has to do on any machine: calls, products, bytes in order, rows at random.

What is counted is the least that is to be done. What our kernels do beyond it is kept apart, as
passes: it takes time, which the cost model has to know, but it brings nobody nearer to a limit.

flops   multiplications and additions
bytes   that must be moved if every input is read once and every output written once
lines   of 64 bytes, as memory moves them: a row of 40 bytes moves one or two
"""

from dataclasses import dataclass
from typing import Literal

from dlrm.nn.precision import ComputeDtype

Ids = Literal["uniform", "zipf"]
"""How likely each row of a table is: equally, or by a power law (`dlrm.bench.batches.draw_ids`)."""
NUMBER_BYTES = {
    "fp32": 4.0, "bf16": 2.0, "bf16_nearest": 2.0, "fp16": 2.0, "split": 2.0, "int8": 1.0,
    "int4": 0.5,
}  # fmt: skip
"""Bytes of a number as layers hand it on and lookups read it; of split tables that is one half."""
LINE_BYTES = 64
VECTOR = 16
"""Numbers of float32 in the widest registers."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a batch, and how many ids it looks up and how they are distributed."""

    batch_size: float
    pooling: float = 1.0
    """Ids of a bag, on average."""
    ids: Ids = "uniform"


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product (m, k) by (k, n)."""

    m: float
    k: float
    n: float

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n

    @property
    def padded_flops(self) -> float:
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
    written: bool = False
    """Whether they are written back."""

    @property
    def row_lines(self) -> int:
        """Cache lines of a row."""
        return -(-self.row_bytes // LINE_BYTES)

    @property
    def lines(self) -> float:
        """Cache lines moved."""
        return self.accesses * self.row_lines * (2 if self.written else 1)

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
    """Type of the products."""
    scalar_flops: float = 0.0
    """Operations beside the products."""
    stream_bytes: float = 0.0
    """Bytes read and written in order."""
    random: tuple[Random, ...] = ()
    passes_bytes: float = 0.0
    """Bytes of results that our kernels write in between, to read them again."""
    passes: tuple[Random, ...] = ()
    """Rows that they visit more often than they must."""

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return sum(product.flops for product in self.products) + self.scalar_flops

    @property
    def bytes(self) -> float:
        """Bytes moved."""
        return self.stream_bytes + sum(rows.bytes for rows in self.random)

    @property
    def lines(self) -> float:
        """Cache lines moved."""
        return self.stream_bytes / LINE_BYTES + sum(rows.lines for rows in self.random)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def streamed(self) -> float:
        """Bytes in order for each byte of the rows that are read, 1 at most."""
        read = sum(rows.accesses * rows.row_bytes for rows in self.random)
        return min(1.0, self.stream_bytes / read) if read else 0.0

    @property
    def tables_bytes(self) -> int:
        """Size of the tables whose rows are read, and of what is kept of those rows."""
        return sum(rows.tables_bytes for rows in self.random)

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


NOTHING = Work(calls=0)
