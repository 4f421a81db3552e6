"""What an operator is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, get_args

from dlrm.bench.batches import Ids
from dlrm.bench.cost.operator_work import READ_BYTES, Shape
from dlrm.errors import ConfigError, unknown
from dlrm.nn.embedding import Storage
from dlrm.nn.precision import ComputeDtype
from dlrm.optim import find


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What an operator is measured on; each operator says which of these matter to it."""

    batch: int = 2048
    """B, samples."""
    tables: int = 8
    """T."""
    rows: int = 1_000_000
    """Of each table."""
    dim: int = 64
    """D."""
    pooling: int = 1
    """Ids of a sample in each table."""
    ids: Ids = "uniform"
    """How ids are distributed, see `dlrm.bench.batches.draw_ids`."""
    precision: ComputeDtype = "fp32"
    """Of the MLPs' products and of what they hand on."""
    storage: Storage = "fp32"
    """Of the tables."""
    optim: str = "sgd"
    """The optimizer, of tables and of dense parameters."""
    widths: tuple[int, ...] = (512, 256, 64)
    """Of the MLP: inputs, then outputs of each layer."""
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "tables", "rows", "dim", "pooling", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(
                f"widths are {dashed(self.widths)}, expected inputs and outputs, such as 512-256-64"
            )
        for name, choices in (
            ("ids", get_args(Ids)),
            ("precision", get_args(ComputeDtype)),
            ("storage", get_args(Storage)),
        ):
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        find(self.optim)

    @property
    def vectors(self) -> int:
        """That a batch gets from the tables: B * T."""
        return self.batch * self.tables

    @property
    def lookups(self) -> int:
        """L, ids of a batch."""
        return self.vectors * self.pooling

    @property
    def shape(self) -> Shape:
        """Of its batches."""
        return Shape(self.batch, self.pooling, self.ids)

    @property
    def number_bytes(self) -> int:
        """Of a number of a row as lookups read it."""
        return READ_BYTES[self.storage]

    @property
    def row_bytes(self) -> int:
        """Of a row as lookups read it."""
        return self.dim * self.number_bytes

    @property
    def all_rows(self) -> tuple[int, ...]:
        """Rows of each of the T tables."""
        return (self.rows,) * self.tables

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer of the MLP."""
        return list(pairwise(self.widths))

    @property
    def parameters(self) -> int:
        """Weights and biases of the MLP."""
        return sum(n * k + k for n, k in self.layers)

    def only(self, names: Sequence[str]) -> dict[str, Any]:
        """Return all fields JSON-ready, None for those that are not named."""
        found = {
            field.name: getattr(self, field.name) if field.name in names else None
            for field in fields(self)
        }
        if found["widths"] is not None:
            found["widths"] = dashed(self.widths)
        return found


def dashed(widths: Sequence[int]) -> str:
    """Return widths as they are given on the command line.

    >>> dashed((512, 256, 64))
    '512-256-64'
    """
    return "-".join(map(str, widths))
